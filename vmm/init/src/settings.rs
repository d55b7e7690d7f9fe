//! The words of the kernel's command line that are for init.
//!
//! | word | meaning |
//! |---|---|
//! | `warren.root=DEVICE` | the root file system's device, for instance `/dev/vda` |
//! | `warren.rootfstype=TYPE` | its type; ext4 if not given |
//! | `warren.rootflags=rw` | mounted writable; otherwise read-only |
//! | `warren.serve=1` | be a function's supervisor ([`crate::serve`]): the root file system comes under an overlay |
//! | `warren.scratch=DEVICE` | then: the disk of the overlay's upper layer and `/tmp`; `/dev/vdb` if not given |
//! | `warren.task=DEVICE` | then: the disk of the function's archive; `/dev/vdc` if not given |
//! | `warren.hold=no` | then: programs run between events, too; for measuring what it costs that they do not |

/// What init is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The root file system; without one the initramfs stays.
    pub root: Option<Root>,
    /// Be a function's supervisor.
    pub serve: bool,
    /// The disk for everything that is written.
    pub scratch: String,
    /// The disk with the function's archive.
    pub task: String,
    /// Let programs run between events.
    pub restless: bool,
}

/// A root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Its device.
    pub device: String,
    /// Its type.
    pub kind: String,
    /// Whether it is mounted writable.
    pub writable: bool,
}

impl Settings {
    /// Reads a command line. Of a word that comes twice the last counts, as for the kernel; what stands behind `--` is
    /// not for init.
    pub(crate) fn parse(command_line: &str) -> Self {
        let words = command_line.split_ascii_whitespace().take_while(|word| *word != "--");
        let pairs = words.filter_map(|word| word.split_once('='));
        let value = |name: &str| pairs.clone().filter(|(key, _)| *key == name).map(|(_, value)| value).last();
        let root = value("warren.root").filter(|device| !device.is_empty()).map(|device| Root {
            device: device.to_owned(),
            kind: value("warren.rootfstype").unwrap_or("ext4").to_owned(),
            writable: value("warren.rootflags") == Some("rw"),
        });
        let device = |name: &str, usual: &str| value(name).unwrap_or(usual).to_owned();
        Self {
            root,
            serve: value("warren.serve") == Some("1"),
            scratch: device("warren.scratch", "/dev/vdb"),
            task: device("warren.task", "/dev/vdc"),
            restless: value("warren.hold") == Some("no"),
        }
    }

    /// The disk that comes over the root file system, if one does.
    pub(crate) fn scratch(&self) -> Option<&str> {
        self.serve.then_some(self.scratch.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let root = |device: &str, kind: &str, writable| {
            Some(Root { device: device.to_owned(), kind: kind.to_owned(), writable })
        };
        for (text, expect) in [
            ("", None),
            ("quiet root=/dev/sda warren.root=", None),
            ("warren.root=/dev/vda", root("/dev/vda", "ext4", false)),
            (
                "warren.root=/dev/vda warren.root=/dev/vdb warren.rootfstype=erofs\n",
                root("/dev/vdb", "erofs", false),
            ),
            ("warren.root=/dev/vda warren.rootflags=rw -- sh", root("/dev/vda", "ext4", true)),
            ("quiet -- /bin/x warren.root=/dev/vda", None),
        ] {
            assert_eq!(Settings::parse(text).root, expect, "{text:?}");
        }
    }

    #[test]
    fn a_supervisor_and_its_disks() {
        let plain = Settings::parse("warren.scratch=/dev/vdx warren.serve=0");
        assert_eq!((plain.serve, plain.scratch()), (false, None));
        let usual = Settings::parse("warren.serve=1 warren.root=/dev/vda");
        assert_eq!((usual.scratch(), usual.task.as_str()), (Some("/dev/vdb"), "/dev/vdc"));
        let named = Settings::parse("warren.serve=1 warren.scratch=/dev/vdx warren.task=/dev/vdy");
        assert_eq!((named.scratch(), named.task.as_str()), (Some("/dev/vdx"), "/dev/vdy"));
        assert!(!named.restless && Settings::parse("warren.serve=1 warren.hold=no").restless);
    }
}
