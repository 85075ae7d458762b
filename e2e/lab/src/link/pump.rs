//! One direction's thread: out of one device, through the line, into the other.

use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::SyncDevice;

use super::counters::Counters;
use super::line::Line;
use super::settings::Settings;

/// Packets that are read before what is due is looked at again: at 1 Gbit/s less than half a millisecond's.
const AT_ONCE: usize = 32;

/// How long an idle pump sleeps before it looks whether its settings changed.
const LOOK: Duration = Duration::from_millis(10);

/// What is shared between a pump and who controls it.
#[derive(Debug, Default)]
pub(super) struct Controls {
    settings: Mutex<Settings>,
    changed: AtomicBool,
    /// What the pump has seen.
    pub(super) counters: Counters,
}

impl Controls {
    /// Changes what `words` name.
    pub(super) fn change<'a>(&self, words: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.change(words)?;
        self.changed.store(true, Release);
        Ok(())
    }

    fn news(&self) -> Option<Settings> {
        self.changed.swap(false, Acquire).then(|| self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Carries packets from one device to the other until one of them fails.
pub(super) fn pump(from: &SyncDevice, to: &SyncDevice, controls: &Arc<Controls>, seed: u64) -> anyhow::Result<()> {
    // The kernel otherwise takes 50 us of freedom with each wake-up.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).context("cannot set the timer slack")?;
    let (start, counters) = (Instant::now(), &controls.counters);
    let (mut line, mut pool, mut buffer) = (Line::<Vec<u8>>::new(seed), Vec::new(), vec![0; 1 << 16]);
    loop {
        if let Some(settings) = controls.news() {
            line.set(settings, start.elapsed());
        }
        let mut now = start.elapsed();
        while let Some((arrived, lost)) = line.take(now) {
            match lost {
                Some(why) => counters.lost(why),
                None => {
                    counters.arrived(now.saturating_sub(arrived.due), arrived.queued);
                    write(to, &arrived.packet, counters)?;
                }
            }
            pool.push(arrived.packet);
            now = start.elapsed();
        }
        let mut read = 0;
        while read < AT_ONCE {
            let bytes = match from.recv(&mut buffer) {
                Ok(bytes) => bytes,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
                Err(error) => return Err(error).context("cannot read from a TUN device"),
            };
            read += 1;
            counters.came(bytes);
            let mut packet: Vec<u8> = pool.pop().unwrap_or_default();
            packet.clear();
            packet.extend_from_slice(&buffer[..bytes]);
            if let Err((packet, why)) = line.put(packet, bytes, start.elapsed()) {
                counters.lost(why);
                pool.push(packet);
            }
        }
        counters.waits(line.queued());
        if read == 0 {
            let now = start.elapsed();
            let wait = line.due().map_or(LOOK, |due| due.saturating_sub(now).min(LOOK));
            let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
            let mut wanted = [PollFd::new(from, PollFlags::IN)];
            match poll(&mut wanted, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for a TUN device"),
            }
        }
    }
}

fn write(to: &SyncDevice, packet: &[u8], counters: &Counters) -> anyhow::Result<()> {
    match to.send(packet) {
        Ok(_) => Ok(()),
        // What a kernel does not take, such as on a device that is down, is lost as on any link.
        Err(error) if error.kind() != ErrorKind::NotFound => {
            counters.unwritten();
            Ok(())
        }
        Err(error) => Err(error).context("cannot write to a TUN device"),
    }
}
