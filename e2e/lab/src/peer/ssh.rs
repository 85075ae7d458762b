//! OpenSSH's -R: channels over one TCP connection, started again in a loop as autossh would, with keepalives of 5 s.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::house::{Launch, Peer, Place, plain_port};

pub(super) struct Ssh;

impl Peer for Ssh {
    fn name(&self) -> String {
        "ssh".into()
    }

    fn programs(&self) -> Vec<&'static str> {
        vec!["ssh", "sshd", "ssh-keygen", "haproxy"]
    }

    fn install(&self) -> &'static str {
        "apt-get install openssh-client openssh-server haproxy"
    }

    fn prepare(&self, place: &Place) -> anyhow::Result<()> {
        for key in ["ssh-relay", "ssh-agent"] {
            if !place.file(key).exists() {
                let mut command = Command::new(place.program("ssh-keygen")?);
                let done = command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(place.file(key)).output();
                ensure!(done.context("cannot run ssh-keygen")?.status.success(), "ssh-keygen made no key");
            }
        }
        // Where sshd locks itself in.
        fs::create_dir_all("/run/sshd").context("cannot make /run/sshd")?;
        let config = format!(
            "ListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nPermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\n\
             PidFile none\nAllowTcpForwarding remote\nGatewayPorts no\nMaxStartups 200\nClientAliveInterval 5\n\
             ClientAliveCountMax 3\nLogLevel ERROR\n",
            place.tunnel(),
            place.file("ssh-relay").display(),
            place.file("ssh-agent.pub").display()
        );
        place.write("sshd.config", &config)?;
        Ok(())
    }

    fn relay(&self, place: &Place) -> anyhow::Result<Vec<Launch>> {
        Ok(vec![Launch::new(place.program("sshd")?, "-D -e -f").and(place.file("sshd.config"))])
    }

    fn agent(&self, place: &Place, number: usize) -> anyhow::Result<Vec<Launch>> {
        let again = format!(
            "while :; do {} -N -T -p {} -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
             -o ExitOnForwardFailure=yes -o ServerAliveInterval=5 -o ServerAliveCountMax=3 -o ConnectTimeout=5 \
             -o LogLevel=ERROR -R 127.0.0.1:{}:{} root@{}; sleep 1; done",
            place.program("ssh")?.display(),
            place.tunnel().port(),
            place.file("ssh-agent").display(),
            plain_port(number),
            place.server(),
            place.tunnel().ip()
        );
        Ok(vec![Launch::new("/bin/sh".into(), "-c").and(again)])
    }
}
