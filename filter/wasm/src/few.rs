//! A map for values by number that are looked up once a connection: plugins, one for each filter configuration of an Envoy.
//! One for many is several times its code.

/// Values by their numbers, searched one by one.
#[derive(Debug)]
pub(crate) struct Few<T>(Vec<(u32, T)>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Few<T> {
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.0.iter().find(|(other, _)| *other == number).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.0.iter_mut().find(|(other, _)| *other == number).map(|(_, value)| value)
    }

    /// Gives a number a value; gives what it had.
    pub(crate) fn insert(&mut self, number: u32, value: T) -> Option<T> {
        let old = self.remove(number);
        self.0.push((number, value));
        old
    }

    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let place = self.0.iter().position(|(other, _)| *other == number)?;
        Some(self.0.swap_remove(place).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_value() {
        let mut few = Few::default();
        assert_eq!((few.insert(1, "a"), few.insert(2, "b"), few.insert(1, "c")), (None, None, Some("a")));
        assert_eq!((few.get(1), few.get(2), few.get(3)), (Some(&"c"), Some(&"b"), None));
        *few.get_mut(2).unwrap() = "d";
        assert_eq!((few.remove(1), few.remove(1)), (Some("c"), None));
        assert_eq!(few.get(2), Some(&"d"));
    }
}
