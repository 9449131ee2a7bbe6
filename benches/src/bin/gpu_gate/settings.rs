//! What the command line asks for.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::stage::Stage;

pub(crate) const USAGE: &str =
    "usage: gpu_gate run OUT [--stages device,kernels,models,serving,timing,judge] [--quick]
           [--seconds N] [--kernels NAME,...] [--cases KERNEL:NUMBER,...]
           [--device cuda|host] [--pack DIRECTORY] [--server ADDRESS:PORT]
       gpu_gate answers DIRECTORY [--quick] [--pack DIRECTORY]
       gpu_gate shape CONFIG DIRECTORY";
/// Compilers and the host executor take their time.
const REHEARSAL_BUDGET: Duration = Duration::from_secs(1800);

pub(crate) fn wrong() -> io::Error {
    io::Error::other(USAGE)
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    /// The first card.
    Cuda,
    /// The host executor: a rehearsal, in which only small cases run.
    Host,
}

impl DeviceKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Host => "host",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Cuda, Self::Host]
            .into_iter()
            .find(|device| device.name() == name)
    }

    /// The one of two limits that holds here: the host executor and compilers take their time.
    pub(crate) fn limit(self, card: Duration, host: Duration) -> Duration {
        match self {
            Self::Cuda => card,
            Self::Host => host,
        }
    }
}

/// Some kernels, and of some of them some cases only.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection(Vec<(String, Option<usize>)>);

impl Selection {
    fn parse_cases(text: &str) -> Option<Self> {
        let case = |pair: &str| {
            let (kernel, number) = pair.split_once(':')?;
            Some((kernel.to_owned(), Some(number.parse().ok()?)))
        };
        text.split(',').map(case).collect::<Option<_>>().map(Self)
    }

    /// Numbers of the wanted ones among the cases of a kernel.
    pub(crate) fn cases(&self, kernel: &str, count: usize) -> Vec<usize> {
        let wanted = |number: &usize| {
            let mut entries = self.0.iter().filter(|(name, _)| name == kernel);
            self.0.is_empty() || entries.any(|(_, case)| case.is_none_or(|case| case == *number))
        };
        (0..count).filter(wanted).collect()
    }
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where results go.
    pub(crate) out: PathBuf,
    /// Where the server and its models are.
    pub(crate) pack: PathBuf,
    pub(crate) device: DeviceKind,
    pub(crate) stages: Vec<Stage>,
    /// A server that runs already, instead of one of ours.
    pub(crate) server: Option<SocketAddr>,
    pub(crate) selection: Selection,
    /// Fewer models, loads and comparisons, and less time for them.
    pub(crate) quick: bool,
    /// Time for all stages together.
    seconds: Option<u64>,
    /// Time for the stage that this process runs.
    pub(crate) budget: Duration,
}

impl Settings {
    pub(crate) fn parse(arguments: &[String]) -> io::Result<Self> {
        let (out, options) = arguments.split_first().ok_or_else(wrong)?;
        let executable = std::env::current_exe()?;
        let mut settings = Self {
            out: PathBuf::from(out),
            pack: executable.parent().map(PathBuf::from).unwrap_or_default(),
            device: DeviceKind::Cuda,
            server: None,
            stages: Stage::ALL.to_vec(),
            selection: Selection::default(),
            quick: false,
            seconds: None,
            budget: REHEARSAL_BUDGET,
        };
        let mut options = options.iter();
        while let Some(name) = options.next() {
            if name == "--quick" {
                settings.quick = true;
                continue;
            }
            let value = options.next().ok_or_else(wrong)?;
            settings.set(name, value).ok_or_else(wrong)?;
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let names = value.split(',');
        match name {
            "--device" => self.device = DeviceKind::parse(value)?,
            "--server" => self.server = Some(value.parse().ok()?),
            "--pack" => self.pack = PathBuf::from(value),
            "--kernels" => {
                let kernels = names.map(|name| (name.to_owned(), None));
                self.selection = Selection(kernels.collect());
            }
            "--cases" => self.selection = Selection::parse_cases(value)?,
            "--stages" => self.stages = names.map(Stage::parse).collect::<Option<_>>()?,
            "--seconds" => self.seconds = Some(value.parse().ok()?),
            "--budget-ms" => self.budget = Duration::from_millis(value.parse().ok()?),
            _ => return None,
        }
        Some(())
    }

    /// Time for the first of the stages that are left, `spent` after the beginning. What stages
    /// before did not use, it shares with those behind it.
    pub(crate) fn budget_of(&self, left: &[Stage], spent: Duration) -> Duration {
        if self.device == DeviceKind::Host && self.seconds.is_none() {
            return REHEARSAL_BUDGET;
        }
        let seconds = |stages: &[Stage]| -> u64 {
            let seconds = stages.iter().map(|stage| stage.seconds(self.quick));
            seconds.sum()
        };
        let all = self.seconds.unwrap_or_else(|| seconds(&self.stages));
        let time = Duration::from_secs(all).saturating_sub(spent);
        let share = seconds(&left[..1]) as f64 / seconds(left) as f64;
        time.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> io::Result<Settings> {
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        Settings::parse(&arguments)
    }

    #[test]
    fn stages_share_the_time_and_pass_on_what_they_do_not_use() {
        let all = Stage::ALL;
        let full = parse("out").unwrap();
        let sum: u64 = all.iter().map(|stage| stage.seconds(false)).sum();
        assert!(sum < 540, "{sum}");
        for (index, stage) in all.iter().enumerate() {
            let spent: u64 = all[..index].iter().map(|stage| stage.seconds(false)).sum();
            let budget = full.budget_of(&all[index..], Duration::from_secs(spent));
            let difference = budget.as_secs_f64() - stage.seconds(false) as f64;
            assert!(difference.abs() < 1e-6, "{stage:?}: {budget:?}");
        }
        let early = full.budget_of(&all[1..], Duration::ZERO);
        assert!(early > Duration::from_secs(all[1].seconds(false)));
        let quick = parse("out --quick --seconds 60").unwrap();
        let last = quick.budget_of(&all[5..], Duration::from_secs(45));
        assert_eq!(last, Duration::from_secs(15));
        assert_eq!(
            quick.budget_of(&all[5..], Duration::from_secs(90)),
            Duration::ZERO
        );
    }

    #[test]
    fn kernels_and_cases_are_chosen_by_name_and_number() {
        let cases =
            |arguments: &str, kernel: &str| parse(arguments).unwrap().selection.cases(kernel, 4);
        assert_eq!(cases("out", "linear"), [0, 1, 2, 3]);
        assert_eq!(cases("out --kernels linear,head", "head"), [0, 1, 2, 3]);
        assert_eq!(cases("out --kernels linear", "head"), [0usize; 0]);
        let some = "out --cases linear:1,head:0,linear:3,linear:9";
        assert_eq!(cases(some, "linear"), [1, 3]);
        assert_eq!(cases(some, "head"), [0]);
        assert!(parse("out --cases linear").is_err());
        assert!(parse("out --quick --stages").is_err());
    }
}
