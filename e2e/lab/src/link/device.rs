//! A TUN device in a network namespace that this process is not in.

use std::fs::File;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd as _;
use tun_rs::{DeviceBuilder, SyncDevice};

/// Packets that the kernel keeps when the pump is late: 15 MB, so that nothing is lost there.
const KERNEL_QUEUE: u32 = 10_000;

/// One end of a link, written `NAMESPACE,DEVICE,ADDRESS/PREFIX`; NAMESPACE is a name that `ip netns` knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    namespace: String,
    device: String,
    address: String,
}

impl FromStr for End {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<_> = text.split(',').collect();
        let [namespace, device, address] = parts[..] else { bail!("want NAMESPACE,DEVICE,ADDRESS/PREFIX") };
        // The kernel's limit; a longer name would be cut to something else.
        if device.is_empty() || device.len() > 15 {
            bail!("the name of a device has 1 to 15 characters");
        }
        Ok(Self { namespace: namespace.into(), device: device.into(), address: address.into() })
    }
}

impl End {
    /// Makes the device, up, with its address; reading it never blocks.
    pub(super) fn open(&self, mtu: u16) -> anyhow::Result<SyncDevice> {
        let (end, path) = (self.clone(), PathBuf::from("/run/netns").join(&self.namespace));
        // A namespace is a thread's: this one enters it and ends there, and the device is still ours.
        let made = std::thread::spawn(move || {
            let namespace = File::open(&path).with_context(|| format!("there is no namespace {}", path.display()))?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter the namespace: this takes root")?;
            end.make(mtu)
        });
        made.join().unwrap_or_else(|_| bail!("the thread that makes the device failed"))
    }

    fn make(&self, mtu: u16) -> anyhow::Result<SyncDevice> {
        let device = DeviceBuilder::new()
            .name(&self.device)
            .enable(false)
            .build_sync()
            .with_context(|| format!("cannot make the TUN device {}: is /dev/net/tun there?", self.device))?;
        device.set_nonblocking(true)?;
        let (mtu, queue) = (mtu.to_string(), KERNEL_QUEUE.to_string());
        let commands: [&[&str]; 2] = [
            &["address", "add", &self.address, "dev", &self.device],
            &["link", "set", "dev", &self.device, "mtu", &mtu, "txqueuelen", &queue, "up"],
        ];
        for command in commands {
            let done = std::process::Command::new("ip").args(command).output().context("cannot run ip")?;
            if !done.status.success() {
                bail!("ip {}: {}", command.join(" "), String::from_utf8_lossy(&done.stderr).trim());
            }
        }
        Ok(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read() {
        let end: End = "lab-relay,lab-b,10.71.2.1/24".parse().unwrap();
        assert_eq!((end.namespace.as_str(), end.device.as_str()), ("lab-relay", "lab-b"));
        for wrong in ["", "a,b", "a,b,c,d", "a,,c", "a,a-name-that-is-too-long,c"] {
            assert!(wrong.parse::<End>().is_err(), "{wrong}");
        }
    }
}
