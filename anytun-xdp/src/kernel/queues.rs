//! Which worker owns which queue of which interface.

use anytun_common::map::QUEUES_PER_INTERFACE;

use super::{HostError, Link};
use crate::config::{Interface, Queues};

/// The queues that get a socket, the same on every interface; the index is the worker.
///
/// A worker sends what it received on one interface out of its own queue of another, so it must have one there: nothing
/// is handed from worker to worker.
///
/// # Errors
///
/// [`HostError::Unsupported`] when an interface lacks a queue that is asked for, or has others than the one before it.
pub fn common(interfaces: &[(&Interface, &Link)]) -> Result<Vec<u32>, HostError> {
    let mut common: Option<(&str, Vec<u32>)> = None;
    for &(interface, link) in interfaces {
        let queues = resolve(interface, link)?;
        match &common {
            None => common = Some((&interface.name, queues)),
            Some((_, others)) if *others == queues => {}
            Some((other, others)) => {
                let fewer = others.len().min(queues.len());
                return Err(HostError::Unsupported {
                    interface: interface.name.clone(),
                    what: format!(
                        "has the queues {} and {other} has {}, but a worker needs its queue on every interface",
                        list(&queues),
                        list(others)
                    ),
                    mend: format!(
                        "give them the same number, for example `ethtool -L {} combined {fewer}`, or choose the same \
                         `queues` for both",
                        if queues.len() > fewer { interface.name.as_str() } else { other }
                    ),
                });
            }
        }
    }
    Ok(common.map(|(_, queues)| queues).unwrap_or_default())
}

/// The queues of one interface that get a socket.
pub(super) fn resolve(interface: &Interface, link: &Link) -> Result<Vec<u32>, HostError> {
    match interface.queues {
        Queues::All => Ok((0..link.queues.min(QUEUES_PER_INTERFACE)).collect()),
        Queues::Range(first, last) if last < link.queues => Ok((first..=last).collect()),
        Queues::Range(_, last) => Err(HostError::Unsupported {
            interface: interface.name.clone(),
            what: format!("has no queue {last}: its queues are 0 to {}", link.queues.saturating_sub(1)),
            mend: format!("correct `queues`, or make more with `ethtool -L {} combined {}`", interface.name, last + 1),
        }),
    }
}

fn list(queues: &[u32]) -> String {
    match queues {
        [] => "none".into(),
        [only] => only.to_string(),
        [first, .., last] => format!("{first}-{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpMode;

    fn plan(interfaces: &[(u32, Queues)]) -> Result<Vec<u32>, HostError> {
        let both = interfaces.iter().enumerate().map(|(index, &(queues, wanted))| {
            let name = format!("eth{index}");
            let interface = Interface { name: name.clone(), xdp: XdpMode::Auto, queues: wanted };
            (interface, Link { name, queues, ..Link::example() })
        });
        let both: Vec<_> = both.collect();
        common(&both.iter().map(|(interface, link)| (interface, link)).collect::<Vec<_>>())
    }

    #[test]
    fn all_queues_are_as_many_as_there_can_be_sockets() {
        assert_eq!(plan(&[(2, Queues::All), (2, Queues::Range(0, 1))]).unwrap(), [0, 1]);
        assert_eq!(plan(&[(100, Queues::All), (64, Queues::All)]).unwrap(), (0..64).collect::<Vec<_>>());
    }

    #[test]
    fn interfaces_with_different_queues_are_refused_with_the_command_that_mends_it() {
        let error = plan(&[(4, Queues::All), (2, Queues::All)]).unwrap_err().to_string();
        assert!(error.contains("`ethtool -L eth0 combined 2`"), "{error}");
        let error = plan(&[(2, Queues::Range(0, 2))]).unwrap_err().to_string();
        assert!(error.contains("has no queue 2: its queues are 0 to 1"), "{error}");
    }
}
