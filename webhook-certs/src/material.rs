/*!
The authorities that are in use, and how one follows another: a pure state machine over what is
stored, driven by the wall clock.

```text
current                   signs; published
current, next             current has lived two thirds: next is published, and signs nothing yet
current, previous         `overlap` later: next became current; previous stays published
current                   another `overlap` later: previous is gone
```

Every replica sees the same states in the same order, because they are in the Secret and every step
is one write with a resource version. At any time each serving certificate in use is signed by an
authority in the published bundle.
*/

use std::time::SystemTime;

use crate::authority::{Authority, AuthorityError, Certificate};
use crate::lifetimes::Lifetimes;

/// The authorities in use.
#[derive(Debug)]
pub struct Material {
    /// Signs.
    pub current: Authority,
    /// Will sign.
    pub next: Option<Authority>,
    /// Has signed.
    pub previous: Option<Certificate>,
}

/// What is to be stored instead.
#[derive(Debug)]
pub struct Step {
    /// The new authorities.
    pub material: Material,
    /// Why, for the log.
    pub reason: &'static str,
}

// === impl Material ===

impl Material {
    /// A first authority.
    pub fn generate(now: SystemTime, lifetimes: &Lifetimes) -> Result<Self, AuthorityError> {
        let current = Authority::generate(now, lifetimes.authority)?;
        Ok(Self {
            current,
            next: None,
            previous: None,
        })
    }

    /// The next state, if one is due. Only to be asked for when [`Material::bundle`] is published,
    /// or a replica could serve with a certificate that no API server knows.
    pub fn step(self, now: SystemTime, lifetimes: &Lifetimes) -> Result<Option<Step>, AuthorityError> {
        let validity = self.current.certificate().validity();
        let Self {
            current,
            next,
            previous,
        } = self;
        if !validity.contains(now) {
            let material = Self::generate(now, lifetimes)?;
            return Ok(Some(Step {
                material,
                reason: "the authority is not valid at this time: it is replaced at once",
            }));
        }
        if let Some(next) = next {
            if now < next.certificate().validity().made() + lifetimes.overlap {
                return Ok(None);
            }
            let previous = Some(current.certificate().clone());
            let material = Self {
                current: next,
                next: None,
                previous,
            };
            return Ok(Some(Step {
                material,
                reason: "the next authority has been published long enough: it signs from now on",
            }));
        }
        if let Some(old) = previous {
            // It became current one overlap after it was made.
            let over = now >= validity.made() + 2 * lifetimes.overlap || !old.validity().contains(now);
            return Ok(over.then(|| {
                let material = Self {
                    current,
                    next: None,
                    previous: None,
                };
                Step {
                    material,
                    reason: "every replica has had time for a new certificate: the old authority is dropped",
                }
            }));
        }
        if lifetimes.is_due(&validity, now) {
            let next = Some(Authority::generate(now, lifetimes.authority)?);
            let material = Self {
                current,
                next,
                previous: None,
            };
            return Ok(Some(Step {
                material,
                reason: "the authority has lived most of its life: the next one is published",
            }));
        }
        Ok(None)
    }

    /// What API servers must trust: all certificates, as PEM.
    pub fn bundle(&self) -> String {
        let certificates = [
            Some(self.current.certificate()),
            self.next.as_ref().map(Authority::certificate),
        ];
        certificates
            .into_iter()
            .flatten()
            .chain(&self.previous)
            .map(Certificate::pem)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_hours(500_000) + Duration::from_secs(seconds)
    }

    fn lifetimes() -> Lifetimes {
        Lifetimes {
            authority: Duration::from_mins(15),
            leaf: Duration::from_mins(1),
            overlap: Duration::from_secs(30),
            renew_after_percent: 60,
        }
    }

    fn store(material: Material, seconds: u64) -> Material {
        match material.step(at(seconds), &lifetimes()).unwrap() {
            Some(step) => step.material,
            None => panic!("nothing to do at {seconds} s"),
        }
    }

    fn rest(material: &Material, seconds: u64) {
        let again = Material {
            current: copy(&material.current),
            next: material.next.as_ref().map(copy),
            previous: material.previous.clone(),
        };
        assert!(
            again.step(at(seconds), &lifetimes()).unwrap().is_none(),
            "at {seconds} s"
        );
    }

    fn copy(authority: &Authority) -> Authority {
        Authority::from_pem(authority.certificate().pem(), &authority.key_pem()).unwrap()
    }

    #[test]
    fn f6_rotation_overlaps_at_every_step() {
        let first = Material::generate(at(0), &lifetimes()).unwrap();
        let old = first.current.certificate().clone();
        rest(&first, 539);

        let both = store(first, 540);
        assert_eq!(both.current.certificate(), &old);
        let new = both.next.as_ref().unwrap().certificate().clone();
        assert_eq!(both.bundle(), format!("{}{}", old.pem(), new.pem()));
        rest(&both, 569);

        let swapped = store(both, 570);
        assert_eq!(swapped.current.certificate(), &new);
        assert_eq!(swapped.bundle(), format!("{}{}", new.pem(), old.pem()));
        rest(&swapped, 599);

        let last = store(swapped, 600);
        assert_eq!(last.bundle(), new.pem());
        rest(&last, 1079);
    }

    #[test]
    fn f7_an_authority_out_of_its_time_is_replaced_at_once() {
        for seconds in [900, 900 + 365 * 86_400] {
            let first = Material::generate(at(0), &lifetimes()).unwrap();
            let old = first.current.certificate().clone();
            assert_ne!(store(first, seconds).current.certificate(), &old);
        }
    }
}
