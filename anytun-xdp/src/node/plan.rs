//! Which worker owns which queue of which interface.

use crate::config::{self, Config, Interface, Queues, SenderIds};
use crate::kernel::{HostError, Link};

/// The queues that get a socket, the same on every interface; the index is the worker.
///
/// A worker sends what it received on one interface out of its own queue of another, so it must have one there: nothing
/// is handed from worker to worker.
pub(super) fn queues(interfaces: &[(&Interface, &Link)]) -> Result<Vec<u32>, HostError> {
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

fn resolve(interface: &Interface, link: &Link) -> Result<Vec<u32>, HostError> {
    match interface.queues {
        Queues::All => Ok((0..link.queues).collect()),
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

/// The first sender ID of every worker.
pub(super) fn sender_ids(config: &Config, workers: usize) -> Result<Vec<u16>, config::Error> {
    let SenderIds { first, last } = config.node.sender_ids;
    let ids: Vec<u16> = (first..=last).take(workers).collect();
    if ids.len() < workers {
        let message = format!(
            "sender_ids has {} of them, but each of the {workers} workers (one for each queue) needs its own: widen the \
             range, or choose fewer `queues`",
            ids.len()
        );
        let problems = vec![config::Problem { line: 0, message }];
        return Err(config::Error { file: config.file.clone(), problems });
    }
    Ok(ids)
}
