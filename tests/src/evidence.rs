//! What the parts of a lab leave behind for whoever has to find out why a test failed: every process files its report
//! here when it goes, and the failure message carries it.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Result;

thread_local! {
    static REPORTS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Files a report under a title.
pub fn file(title: &str, text: &str) {
    REPORTS.with_borrow_mut(|reports| reports.push(format!("---- {title}\n{}", text.trim_end())));
}

/// Takes everything this thread has filed so far.
pub fn take() -> String {
    REPORTS.with_borrow_mut(|reports| std::mem::take(reports).join("\n"))
}

/// Runs a test. What went wrong, an error or a panic, comes with everything that was filed meanwhile.
pub fn gather(work: impl FnOnce() -> Result<()>) -> Result<(), String> {
    take();
    let why = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => message(&*panic),
    };
    Err(format!("{why}\n{}", take()))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("with something that is no text"))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn errors_and_panics_come_with_what_was_filed() {
        file("before", "of another test");
        let failing = gather(|| {
            file("log", "the last words");
            Err(anyhow!("wrong"))
        });
        assert_eq!(failing, Err("wrong\n---- log\nthe last words".to_owned()));
        assert_eq!(gather(|| panic!("{} left", 2)), Err("panicked: 2 left\n".to_owned()));
        assert_eq!(gather(|| Ok(())), Ok(()));
    }
}
