//! The devices that networks compute on, each opened once.
//!
//! Why once: an opened GPU holds its libraries' handles and candle's kernels, hundreds of megabytes of its memory.

use std::sync::{Mutex, PoisonError};

use adit_vision::{Compute, DeviceChoice, DeviceFault, VisionError};

/// Opened devices.
#[derive(Debug)]
pub struct Devices {
    /// The one for models that ask for no other.
    usual: Compute,
    opened: Mutex<Vec<(DeviceChoice, Compute)>>,
}

impl Devices {
    /// Opens the device for all models that ask for no other, and logs which it is. Fails only where it is a GPU that was asked
    /// for by number and is not to be had. Takes a second for a GPU.
    pub fn open(choice: DeviceChoice) -> Result<Self, VisionError> {
        let usual = open(choice)?;
        Ok(Self { usual: usual.clone(), opened: Mutex::new(vec![(choice, usual)]) })
    }

    /// The processor alone, until a model asks for another.
    pub fn cpu() -> Self {
        Self { usual: Compute::cpu(), opened: Mutex::new(vec![(DeviceChoice::Cpu, Compute::cpu())]) }
    }

    /// The device that a model asks for.
    pub(crate) fn of(&self, wanted: Option<DeviceChoice>) -> Result<Compute, VisionError> {
        let Some(wanted) = wanted else { return Ok(self.usual.clone()) };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        // A GPU that `auto` has found is also the one of its number.
        let name = wanted.to_string();
        let there = opened.iter().find(|(choice, compute)| *choice == wanted || *compute.name == *name);
        if let Some((_, compute)) = there {
            return Ok(compute.clone());
        }
        let compute = open(wanted)?;
        opened.push((wanted, compute.clone()));
        Ok(compute)
    }

    /// What they are called: the usual one first, and each once.
    pub fn names(&self) -> Vec<String> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> = Vec::new();
        for (_, compute) in &*opened {
            if !names.iter().any(|name| **name == *compute.name) {
                names.push(compute.name.to_string());
            }
        }
        names
    }
}

fn open(choice: DeviceChoice) -> Result<Compute, VisionError> {
    let compute = choice.open()?;
    let device = &*compute.name;
    match &compute.fallback {
        None => tracing::info!(device, "networks compute here"),
        // Who builds without it knows.
        Some(fault @ DeviceFault::NotBuilt) => tracing::info!(device, reason = %fault, "networks compute here"),
        Some(fault) => {
            tracing::warn!(device, reason = %fault, "no GPU is to be had: networks compute on the processor")
        }
    }
    Ok(compute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_opened_once_and_the_usual_one_is_for_whoever_asks_for_none() {
        let devices = Devices::open(DeviceChoice::Cpu).unwrap();
        assert_eq!(&*devices.of(None).unwrap().name, "cpu");
        assert_eq!(&*devices.of(Some(DeviceChoice::Cpu)).unwrap().name, "cpu");
        assert_eq!(devices.names(), ["cpu"]);
        let found = devices.of(Some(DeviceChoice::Auto)).unwrap();
        assert_eq!(devices.names().len(), if found.device.is_cpu() { 1 } else { 2 });
        assert_eq!(devices.opened.lock().unwrap().len(), 2, "what `auto` has found is remembered");
        devices.of(Some(DeviceChoice::Auto)).unwrap();
        assert_eq!(devices.opened.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_for_whoever_asked_for_it() {
        let devices = Devices::cpu();
        let error = devices.of(Some(DeviceChoice::Cuda(999))).unwrap_err();
        assert!(matches!(error, VisionError::Device { .. }), "{error}");
        assert_eq!(devices.names(), ["cpu"]);
        assert!(Devices::open(DeviceChoice::Cuda(999)).is_err());
    }
}
