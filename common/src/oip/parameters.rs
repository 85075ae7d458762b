//! The parameters of a request, an answer or a tensor: names with a text, a number or a truth value each.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::error::OipError;

/// How many there may be: far more than any client sends, few enough to be cheap.
const MAX_PARAMETERS: usize = 64;

/// Parameters by name. Reading refuses more than 64 of them, and values that are lists or objects.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct Parameters(BTreeMap<String, Value>);

impl Parameters {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Sets a parameter.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// As [`Parameters::set`], to be written in one expression.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// Every name and value, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// `timeout` of a request, which travels in microseconds; zero is none.
    pub fn timeout(&self) -> Result<Option<Duration>, OipError> {
        Ok(self.whole("timeout")?.filter(|micros| *micros > 0).map(Duration::from_micros))
    }

    /// `priority` of a request: 1 is the highest, 0 the model's default.
    pub fn priority(&self) -> Result<u64, OipError> {
        Ok(self.whole("priority")?.unwrap_or(0))
    }

    /// `classification` of a requested output: how many classes; zero is none.
    pub fn classification(&self) -> Result<Option<usize>, OipError> {
        let count = self.whole("classification")?.filter(|count| *count > 0);
        Ok(count.map(|count| usize::try_from(count).unwrap_or(usize::MAX)))
    }

    /// `binary_data` of a requested output: whether its data travels behind the JSON.
    pub fn binary_data(&self) -> Result<Option<bool>, OipError> {
        self.flag("binary_data")
    }

    /// `binary_data_output` of a request: the same for every output that does not say.
    pub fn binary_data_output(&self) -> Result<Option<bool>, OipError> {
        self.flag("binary_data_output")
    }

    /// Takes `binary_data_size` of a tensor out: it describes the bytes of one message, not the tensor.
    pub(super) fn take_binary_data_size(&mut self) -> Result<Option<usize>, OipError> {
        let wrong = OipError::Parameter { name: "binary_data_size", wanted: "a whole number of bytes" };
        match self.0.remove("binary_data_size") {
            None => Ok(None),
            Some(value) => value.as_u64().and_then(|size| usize::try_from(size).ok()).map(Some).ok_or(wrong),
        }
    }

    fn whole(&self, name: &'static str) -> Result<Option<u64>, OipError> {
        let read = |value: &Value| value.as_u64().ok_or(OipError::Parameter { name, wanted: "a whole number" });
        self.get(name).map(read).transpose()
    }

    fn flag(&self, name: &'static str) -> Result<Option<bool>, OipError> {
        let read = |value: &Value| value.as_bool().ok_or(OipError::Parameter { name, wanted: "true or false" });
        self.get(name).map(read).transpose()
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Parameters;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object of parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Parameters, A::Error> {
                let mut parameters = BTreeMap::new();
                while let Some((name, value)) = entries.next_entry::<String, Value>()? {
                    if value.is_array() || value.is_object() {
                        return Err(A::Error::custom("a parameter must be a text, a number, true or false"));
                    }
                    if parameters.len() == MAX_PARAMETERS {
                        return Err(A::Error::custom(format_args!("more than {MAX_PARAMETERS} parameters")));
                    }
                    parameters.insert(name, value);
                }
                Ok(Parameters(parameters))
            }
        }

        from.deserialize_map(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Parameters, String> {
        serde_json::from_str(text).map_err(|error: serde_json::Error| error.to_string())
    }

    #[test]
    fn known_parameters_have_their_meaning() {
        let parameters = read(r#"{"timeout":250000,"priority":1,"classification":5,"binary_data":false}"#).unwrap();
        assert_eq!(parameters.timeout().unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(parameters.priority().unwrap(), 1);
        assert_eq!(parameters.classification().unwrap(), Some(5));
        assert_eq!(parameters.binary_data().unwrap(), Some(false));
        assert_eq!(parameters.binary_data_output().unwrap(), None);
    }

    #[test]
    fn absent_and_zero_are_none() {
        let parameters = read(r#"{"timeout":0,"classification":0}"#).unwrap();
        assert_eq!(parameters.timeout().unwrap(), None);
        assert_eq!(parameters.classification().unwrap(), None);
        assert_eq!(parameters.priority().unwrap(), 0);
    }

    #[test]
    fn a_value_of_another_kind_is_an_error_that_names_the_parameter() {
        let parameters = read(r#"{"timeout":-1,"priority":"high","binary_data":1}"#).unwrap();
        assert!(parameters.timeout().unwrap_err().to_string().contains("\"timeout\" must be a whole number"));
        assert!(parameters.priority().is_err());
        assert!(parameters.binary_data().unwrap_err().to_string().contains("true or false"));
    }

    #[test]
    fn their_number_and_depth_are_bounded() {
        let many: Vec<_> = (0..65).map(|index| format!("\"p{index}\":1")).collect();
        assert!(read(&format!("{{{}}}", many.join(","))).unwrap_err().contains("more than 64"));
        assert!(read(&format!("{{{}}}", many[..64].join(","))).is_ok());
        assert!(read(r#"{"a":{"b":1}}"#).unwrap_err().contains("must be a text"));
    }
}
