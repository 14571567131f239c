//! Versions of proxies beside that of their control plane. Pure.

use std::str::FromStr;

/// How many minor versions a proxy may be behind its control plane.
pub const LARGEST_LAG: u32 = 2;

/// The part of a version that says what works with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

/// What a proxy's version is to its control plane's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    Supported,
    TooOld,
    TooNew,
}

impl Version {
    /// Of an image's tag; none where that is a digest, or no version.
    pub fn of_image(image: &str) -> Option<Self> {
        let tagged = image.split_once('@').map_or(image, |(tagged, _)| tagged);
        let last = tagged.rsplit('/').next()?;
        last.split_once(':')?.1.parse().ok()
    }

    /// Whether a proxy of this version works with a control plane of that one.
    pub fn beside(self, control_plane: Self) -> Skew {
        if self > control_plane {
            Skew::TooNew
        } else if self.major < control_plane.major || self.minor + LARGEST_LAG < control_plane.minor
        {
            Skew::TooOld
        } else {
            Skew::Supported
        }
    }
}

/// `1.4`, `1.4.2`, `v1.4.2-rc.1+build`.
impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let core = text.split(['-', '+']).next().unwrap_or_default();
        let numbers: Vec<u32> =
            core.split('.').map(|part| part.parse().map_err(drop)).collect::<Result<_, ()>>()?;
        match numbers[..] {
            [major, minor] | [major, minor, _] => Ok(Self { major, minor }),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn reads_tags() {
        let of = |image| Version::of_image(image).map(|v| (v.major, v.minor));
        for (image, expected) in [
            ("registry.test:5000/mesh/meshwright-proxy:1.4.2", Some((1, 4))),
            ("meshwright-proxy:v0.12.0-rc.1", Some((0, 12))),
            ("meshwright-proxy:1.4@sha256:abc", Some((1, 4))),
            ("registry.test:5000/meshwright-proxy", None),
            ("meshwright-proxy@sha256:abc", None),
            ("meshwright-proxy:latest", None),
            ("meshwright-proxy:20261121", None),
            ("meshwright-proxy:1.x.2", None),
        ] {
            assert_eq!(of(image), expected, "{image}");
        }
    }

    #[test]
    fn two_minor_versions_behind_is_as_far_as_it_goes() {
        let beside = |proxy, control_plane| version(proxy).beside(version(control_plane));
        for (proxy, expected) in [
            ("1.5.9", Skew::Supported),
            ("1.5.0", Skew::Supported),
            ("1.4.0", Skew::Supported),
            ("1.3.7", Skew::Supported),
            ("1.2.9", Skew::TooOld),
            ("0.9.0", Skew::TooOld),
            ("1.6.0", Skew::TooNew),
            ("2.0.0", Skew::TooNew),
        ] {
            assert_eq!(beside(proxy, "1.5.1"), expected, "{proxy}");
        }
        assert_eq!(beside("1.9.0", "2.0.0"), Skew::TooOld);
    }
}
