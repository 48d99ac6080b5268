//! Errors of the compiler itself: a panic becomes a message that names the phase and asks for a report.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};

use bertc_ir::Diag;

/// The exit code of an error of the compiler itself, `EX_SOFTWARE` of sysexits.
pub const EXIT_CODE: u8 = 70;

const PREFIX: &str = "internal error: ";

thread_local! {
    /// Where the last panic was, with the backtrace if `RUST_BACKTRACE` asks for one.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };

    /// What the compiler is doing, for the message of a panic.
    static DOING: Cell<&'static str> = const { Cell::new("") };
}

/// An error that is none of the user's.
pub fn error(message: &str) -> Diag {
    Diag::new(format!("{PREFIX}{message}"))
}

/// The request for a report, as a note.
#[must_use]
pub fn please_report(d: Diag) -> Diag {
    d.note(format!(
        "this is a bug in bertc {}: please report it, with this message and what it takes to repeat it",
        env!("CARGO_PKG_VERSION")
    ))
}

/// Whether any of these is an error of the compiler itself.
pub fn is_internal(diags: &[Diag]) -> bool {
    diags.iter().any(|d| d.message.starts_with(PREFIX))
}

/// Says what the compiler is doing from now on; returns what it did before.
pub fn doing(what: &'static str) -> &'static str {
    DOING.replace(what)
}

/// Keeps panics of this thread quiet: [`guard`] and the pass manager turn them into messages.
pub fn install_hook() {
    let thread = std::thread::current().id();
    let default = take_hook();
    set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        // Nobody may wait for another thread, so its panic is shown at once.
        if std::thread::current().id() != thread {
            return default(info);
        }
        let mut place = info.location().map_or_else(String::new, ToString::to_string);
        let wanted = std::env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0");
        if wanted {
            place += &format!("\n{}", Backtrace::force_capture());
        }
        PLACE.replace(Some(place));
    }));
}

/// The note on where the last panic was, once.
pub fn place_of_panic(d: Diag) -> Diag {
    match PLACE.take() {
        Some(place) => d.note(format!("at {place}")),
        None => d,
    }
}

/// Runs `work`; a panic becomes an error.
///
/// # Errors
/// Those of `work`, and a panic.
pub fn guard<T>(work: impl FnOnce() -> Result<T, Vec<Diag>>) -> Result<T, Vec<Diag>> {
    // What `work` changed is dropped by its owners, all of which the panic unwinds.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let message = bertc_passes::panic_message(&*payload);
        let when = match doing("") {
            "" => String::new(),
            what => format!(" while {what}"),
        };
        let d = error(&format!("a panic{when}: {message}"));
        Err(vec![please_report(place_of_panic(d))])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_names_the_phase() {
        let e = guard::<()>(|| {
            let mut progress = crate::progress::Progress::hidden();
            progress.phase(crate::progress::Phase::Lower, || panic!("no kernel for {}", 7));
            Ok(())
        });
        let e = e.unwrap_err();
        assert!(is_internal(&e), "{e:?}");
        assert_eq!(e[0].message, "internal error: a panic while lowering to kernels: no kernel for 7");
        assert!(e[0].notes.last().is_some_and(|n| n.contains("please report")), "{e:?}");
        assert_eq!(guard(|| Ok(3)), Ok(3));
        assert!(!is_internal(&guard::<()>(|| Err(vec![Diag::new("no file")])).unwrap_err()));
    }
}
