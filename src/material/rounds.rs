//! How much work a PFX file asks for before it opens: the rounds by which keys are made of its password. They stand in the
//! clear, so they are looked at before any is made; a thread that makes keys cannot be stopped.

/// Rounds for one key. OpenSSL writes 2,048 and Windows 2,000; ten times what careful programs choose.
const ROUNDS_MAX: u64 = 1_000_000;
/// Rounds for the whole file, which has a key for each of its parts.
const WHOLE_MAX: u64 = 10_000_000;
/// PFX files nest seven levels deep.
const DEPTH_MAX: u8 = 24;

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// Counts rounds.
#[derive(Default)]
struct Rounds {
    most: u64,
    whole: u64,
}

/// How many rounds a file asks for, if they are too many.
pub(crate) fn too_many(der: &[u8]) -> Option<u64> {
    let mut rounds = Rounds::default();
    rounds.count(der, DEPTH_MAX);
    (rounds.most > ROUNDS_MAX || rounds.whole > WHOLE_MAX).then_some(rounds.whole)
}

impl Rounds {
    /// In every way of making a key the number of rounds follows the salt (RFC 7292 section 4, appendices A to C; RFC 8018
    /// appendix A; RFC 7914 section 7, where it is the cost), and nothing else in these files has a number there.
    fn count(&mut self, mut der: &[u8], depth: u8) {
        let mut before = 0;
        while let Some((tag, body, rest)) = element(der) {
            match tag {
                INTEGER if before == OCTETS => {
                    let rounds = number(body);
                    self.most = self.most.max(rounds);
                    self.whole = self.whole.saturating_add(rounds);
                }
                _ if depth > 0 && holds_elements(tag, body) => self.count(body, depth - 1),
                _ => {}
            }
            before = tag;
            der = rest;
        }
    }
}

/// Whether there are elements inside: in what is constructed, and in octets that are one sequence.
fn holds_elements(tag: u8, body: &[u8]) -> bool {
    match tag {
        OCTETS => element(body).is_some_and(|(tag, _, rest)| tag == SEQUENCE && rest.is_empty()),
        tag => tag & 0x20 != 0,
    }
}

/// The first element: its tag, what it holds, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (usize::try_from(number(bytes)).ok()?, rest)
        }
        _ => return None,
    };
    let (body, rest) = rest.split_at_checked(length)?;
    Some((tag, body, rest))
}

/// A number without a sign; one that is larger than all others if it is longer.
fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let digits = bytes.get(digits..).unwrap_or_default();
    if digits.len() > 8 {
        return u64::MAX;
    }
    digits
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::too_many;

    fn wrapped(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], body].concat()
    }

    /// A salt and rounds, as they stand in the parameters of a key.
    fn key(rounds: u64) -> Vec<u8> {
        let number = [&[0][..], &rounds.to_be_bytes()].concat();
        let number = [&[2, 9], number.as_slice()].concat();
        wrapped(0x30, &[&[4, 2, 7, 7], number.as_slice()].concat())
    }

    /// Keys inside of octets inside of an element with a tag of its own.
    fn file(keys: &[u64]) -> Vec<u8> {
        let keys: Vec<u8> = keys.iter().flat_map(|rounds| key(*rounds)).collect();
        let inner = wrapped(4, &wrapped(0x30, &keys));
        wrapped(0x30, &[&[2, 1, 3], wrapped(0xa0, &inner).as_slice()].concat())
    }

    #[test]
    fn one_key_and_all_keys_together_have_a_most() {
        for (keys, found) in [
            (&[][..], None),
            (&[1_000_000], None),
            (&[1_000_001], Some(1_000_001)),
            (&[1_000_000; 10], None),
            (&[1_000_000; 11], Some(11_000_000)),
            (&[u64::MAX, 1], Some(u64::MAX)),
        ] {
            assert_eq!(too_many(&file(keys)), found, "{keys:?}");
        }
    }

    #[test]
    fn files_of_other_programs_ask_for_few() {
        for der in [
            &include_bytes!("../../tests/certificates/client.pfx")[..],
            include_bytes!("../../tests/certificates/client.legacy.pfx"),
            include_bytes!("../../tests/certificates/client.nopassword.pfx"),
        ] {
            assert_eq!(too_many(der), None);
            let mut rounds = super::Rounds::default();
            rounds.count(der, super::DEPTH_MAX);
            assert!(rounds.whole >= 3 * 2000, "each key is counted: {}", rounds.whole);
        }
    }

    #[test]
    fn a_deep_file_ends_the_count() {
        let mut der = key(u64::MAX);
        for _ in 0..60 {
            der = wrapped(0x30, &der);
        }
        assert_eq!(too_many(&der), None);
    }

    proptest! {
        #[test]
        fn no_bytes_end_the_reader(der in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = too_many(&der);
        }

        #[test]
        fn a_file_with_too_many_rounds_is_found_wherever_they_stand(keys in proptest::collection::vec(1u64..5_000_000, 1..20)) {
            let whole: u64 = keys.iter().sum();
            let expected = (keys.iter().any(|rounds| *rounds > 1_000_000) || whole > 10_000_000).then_some(whole);
            assert_eq!(too_many(&file(&keys)), expected);
        }
    }
}
