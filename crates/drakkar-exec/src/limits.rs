//! `executor.limits`: what the processes of a task may use, and whether they may outlive the worker.
//!
//! This module only says which tools of util-linux set what; [`wrap`](crate::wrap) puts them before
//! the task's program. This process sets no limits itself: in the child, before its program is
//! loaded, it could only do so after a fork of the whole worker, and from outside it would come too
//! late, when the program is running already.

use drakkar_api::{Field, Kind, Problems, Section};
use serde::Deserialize;

/// The path of the section.
pub(crate) const PATH: &str = "executor.limits";

/// The settings of the section, for the validator and the reference page.
pub(crate) const LIMITS: Section = Section {
    about: "What the processes of tasks may use. A limit that is null stays as the worker has it. \
            Limits are set by `prlimit` and the signal by `setpriv`, both of util-linux, which start \
            the task's program and must be installed if something is set here; each of the two costs \
            every task about a millisecond of CPU time. Each limit holds for every process of a task \
            by itself, not for their sum. Not together with `executor.wrap`, which can hold the same \
            tools. A program that the kernel refuses to load, say because its interpreter is missing, \
            ends with exit code 126 or 127 then.",
    fields: &[
        Field {
            name: "address_space_bytes",
            kind: Kind::Optional(&Kind::Int { min: MIB, max: i64::MAX }),
            default: Some("null"),
            about: "The size of the address space, in bytes: all that a process has mapped, whether \
                    or not it is in memory. Beyond it, allocations fail and the program ends as it \
                    ends without memory. Programs that reserve much more than they use, such as \
                    those in Java or Go, are better served by `data_bytes`.",
        },
        Field {
            name: "data_bytes",
            kind: Kind::Optional(&Kind::Int { min: MIB, max: i64::MAX }),
            default: Some("null"),
            about: "The size of what a process can write to and shares with nobody, in bytes. Beyond \
                    it, allocations fail as with `address_space_bytes`.",
        },
        Field {
            name: "cpu_seconds",
            kind: Kind::Optional(&Kind::Int { min: 1, max: SECONDS_MAX }),
            default: Some("null"),
            about: "The CPU time of a process, in seconds. Then it gets SIGXCPU (24), which ends a \
                    program that does not handle it, and a second later SIGKILL.",
        },
        Field {
            name: "open_files",
            kind: Kind::Optional(&Kind::Int { min: 4, max: i32::MAX as i64 }),
            default: Some("null"),
            about: "How many file descriptors a process may have open. Beyond it, opening fails.",
        },
        Field {
            name: "file_size_bytes",
            kind: Kind::Optional(&Kind::Int { min: 0, max: i64::MAX }),
            default: Some("null"),
            about: "The greatest size of a file that a process writes, in bytes. Beyond it, it gets \
                    SIGXFSZ (25). Pipes, and so the captured output, are not files.",
        },
        Field {
            name: "processes",
            kind: Kind::Optional(&Kind::Int { min: 1, max: i32::MAX as i64 }),
            default: Some("null"),
            about: "How many processes and threads the worker's user may have when a task starts \
                    another one; all of that user count, not only the task's. Beyond it, starting \
                    fails. It does not bind root.",
        },
        Field {
            name: "core_size_bytes",
            kind: Kind::Optional(&Kind::Int { min: 0, max: i64::MAX }),
            default: Some("null"),
            about: "The greatest size of a core file, in bytes; 0 prevents them.",
        },
        Field {
            name: "parent_death_signal",
            kind: Kind::Optional(&Kind::Word(&["KILL", "TERM"])),
            default: Some("null"),
            about: "What a task's program gets when the worker dies without having ended it, say of \
                    `kill -9`; with null it runs on. Programs that it has started itself do not get \
                    it, nor does one that gains privileges by being started, nor one that the worker \
                    was just starting.",
        },
    ],
};

const MIB: i64 = 1024 * 1024;
/// One year.
const SECONDS_MAX: i64 = 31_536_000;

/// The section `executor.limits`. Its table, which the reference page shows, says what each means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// All that a process has mapped.
    pub address_space_bytes: Option<u64>,
    /// What a process can write to and shares with nobody.
    pub data_bytes: Option<u64>,
    /// The CPU time of a process.
    pub cpu_seconds: Option<u64>,
    /// The open descriptors of a process.
    pub open_files: Option<u64>,
    /// The size of files that a process writes.
    pub file_size_bytes: Option<u64>,
    /// The processes and threads of the worker's user.
    pub processes: Option<u64>,
    /// The size of a core file.
    pub core_size_bytes: Option<u64>,
    /// What a program gets when the worker dies.
    pub parent_death_signal: Option<DeathSignal>,
}

/// What a task's program gets when the worker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum DeathSignal {
    /// SIGKILL: it ends at once.
    #[serde(rename = "KILL")]
    Kill,
    /// SIGTERM: it is asked to end, and nobody is left to insist.
    #[serde(rename = "TERM")]
    Term,
}

impl DeathSignal {
    fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Term => "TERM",
        }
    }
}

/// One limit: the name of its setting, the option of `prlimit`, and what it is set to.
type Limit = (&'static str, &'static str, u64);

impl LimitsSection {
    /// Returns whether nothing is limited.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the values against the table.
    pub(crate) fn check(&self, problems: &mut Problems) {
        for (name, _, value) in self.limits() {
            let (min, max) = bounds_of(name);
            if i64::try_from(value).is_ok_and(|value| (min..=max).contains(&value)) {
                continue;
            }
            let message = format!("must be between {min} and {max}, found {value}");
            problems.push(format!("{PATH}.{name}"), message);
        }
    }

    /// Returns the commands that set all this, each of which starts the next one. The signal comes
    /// first, so that a worker that dies meanwhile takes the others with it.
    pub(crate) fn commands(&self) -> Vec<Vec<String>> {
        let death = self.parent_death_signal.map(|signal| {
            ["setpriv", "--pdeathsig", signal.as_str()].map(ToOwned::to_owned).to_vec()
        });
        let options = self.limits().map(|(_, option, value)| match option {
            // With both at the same value the kernel does not warn before it kills.
            "cpu" => format!("--cpu={value}:{}", value + 1),
            other => format!("--{other}={value}"),
        });
        let limits: Vec<_> = std::iter::once("prlimit".to_owned()).chain(options).collect();
        death.into_iter().chain((limits.len() > 1).then_some(limits)).collect()
    }

    fn limits(&self) -> impl Iterator<Item = Limit> {
        let all = [
            ("address_space_bytes", "as", self.address_space_bytes),
            ("data_bytes", "data", self.data_bytes),
            ("cpu_seconds", "cpu", self.cpu_seconds),
            ("open_files", "nofile", self.open_files),
            ("file_size_bytes", "fsize", self.file_size_bytes),
            ("processes", "nproc", self.processes),
            ("core_size_bytes", "core", self.core_size_bytes),
        ];
        all.into_iter().filter_map(|(name, option, value)| Some((name, option, value?)))
    }
}

fn bounds_of(name: &str) -> (i64, i64) {
    match LIMITS.fields.iter().find(|field| field.name == name).map(|field| field.kind) {
        Some(Kind::Optional(Kind::Int { min, max })) => (*min, *max),
        _ => unreachable!("{name} is a whole number in the table, which a test shows"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All limits, each with another value.
    fn full() -> LimitsSection {
        LimitsSection {
            address_space_bytes: Some(1 << 30),
            data_bytes: Some(1 << 29),
            cpu_seconds: Some(60),
            open_files: Some(64),
            file_size_bytes: Some(0),
            processes: Some(100),
            core_size_bytes: Some(0),
            parent_death_signal: Some(DeathSignal::Kill),
        }
    }

    fn commands(limits: &LimitsSection) -> Vec<String> {
        limits.commands().iter().map(|command| command.join(" ")).collect()
    }

    #[test]
    fn every_limit_becomes_an_option_of_its_tool() {
        let expect = [
            "setpriv --pdeathsig KILL",
            "prlimit --as=1073741824 --data=536870912 --cpu=60:61 --nofile=64 --fsize=0 \
             --nproc=100 --core=0",
        ];
        assert_eq!(commands(&full()), expect);
    }

    #[test]
    fn only_tools_that_are_needed_are_used() {
        let check = |limits: LimitsSection, expect: &[&str]| {
            assert_eq!(limits.is_empty(), expect.is_empty());
            assert_eq!(commands(&limits), expect);
        };
        check(LimitsSection::default(), &[]);
        let core = LimitsSection { core_size_bytes: Some(0), ..LimitsSection::default() };
        check(core, &["prlimit --core=0"]);
        let signal = Some(DeathSignal::Term);
        let death = LimitsSection { parent_death_signal: signal, ..LimitsSection::default() };
        check(death, &["setpriv --pdeathsig TERM"]);
    }

    #[test]
    fn values_are_checked_against_the_table() {
        let problems = |limits: &LimitsSection| {
            let mut problems = Problems::new();
            limits.check(&mut problems);
            problems.iter().map(|problem| problem.path.clone()).collect::<Vec<_>>()
        };
        assert_eq!(problems(&full()), [""; 0]);
        let wrong = LimitsSection {
            address_space_bytes: Some(4096),
            cpu_seconds: Some(0),
            open_files: Some(3),
            file_size_bytes: Some(u64::MAX),
            ..LimitsSection::default()
        };
        let expect = ["address_space_bytes", "cpu_seconds", "open_files", "file_size_bytes"];
        assert_eq!(problems(&wrong), expect.map(|name| format!("executor.limits.{name}")));
    }

    #[test]
    fn the_table_has_the_settings_of_the_section() {
        let given = serde_json::json!({
            "address_space_bytes": 1 << 30,
            "data_bytes": 1 << 29,
            "cpu_seconds": 60,
            "open_files": 64,
            "file_size_bytes": 0,
            "processes": 100,
            "core_size_bytes": 0,
            "parent_death_signal": "KILL",
        });
        let section: LimitsSection = serde_json::from_value(given.clone()).expect("it fits");
        assert_eq!(section, full());
        let given = given.as_object().expect("a table").keys().map(String::as_str);
        let mut table: Vec<_> = LIMITS.fields.iter().map(|field| field.name).collect();
        table.sort_unstable();
        assert!(given.eq(table));
        assert!(LIMITS.fields.iter().all(|field| field.default == Some("null")));
        assert!(full().limits().all(|(name, ..)| bounds_of(name).0 < bounds_of(name).1));
    }
}
