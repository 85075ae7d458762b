//! How much memory this process holds.

/// What the system says of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that it holds now.
    pub resident: u64,
    /// The most that it ever held.
    pub peak: u64,
}

impl Memory {
    /// As it is now; `None` where the system does not say it in Linux's way.
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let kibibytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        Some(Self { resident: kibibytes("VmRSS:")?, peak: kibibytes("VmHWM:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_it_in_kibibytes() {
        let status = "Name:\tadit-agent\nVmPeak:\t   99 kB\nVmHWM:\t    20 kB\nVmRSS:\t     8 kB\n";
        assert_eq!(Memory::parse(status), Some(Memory { resident: 8192, peak: 20480 }));
        assert_eq!(Memory::parse("Name:\tadit-agent\n"), None);
    }
}
