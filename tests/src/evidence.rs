//! What the parts of a lab leave behind for whoever has to find out why a test failed: every process files its report
//! here when it goes, and the failure message carries it.

use std::cell::RefCell;

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
