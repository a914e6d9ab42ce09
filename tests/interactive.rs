//! The prompt loop: on a terminal of its own, and fed from a pipe.

#![cfg(feature = "embedded-model")]

#[path = "common/program.rs"]
mod program;

use program::{Run, generate, path, program, run_command};
use tempfile::TempDir;

/// The loop with lines from a pipe.
fn piped(arguments: &[&str], lines: &str) -> Run {
    let mut command = program();
    command.args(["interactive", "--device", "cpu", "--quiet"]).args(arguments).write_stdin(lines);
    run_command(&mut command)
}

const GREEDY: [&str; 4] = ["--temperature", "0", "-n", "9"];
/// What is typed is added as it is.
const AS_IT_IS: [&str; 6] = ["--temperature", "0", "-n", "9", "--turns", "length"];

#[test]
fn lines_from_a_pipe_are_turns_of_one_text() {
    let run = piped(&AS_IT_IS, "To be or \n\r\n of\r\nquit\nnever read\n");
    assert_eq!(run.stderr, "");
    let text = run.ok();
    let (first, rest) = text.split_once('\n').expect("two turns");
    assert_eq!(first, "the world");
    let whole = generate(&["-p", "To be or the world of", "--greedy", "-n", "9", "--no-echo", "--quiet"]).ok();
    assert_eq!(rest, whole);
    // Without a last line end, and with bytes that are no valid text.
    assert_eq!(piped(&GREEDY, "To be or ").ok(), "the world\n");
    assert_eq!(piped(&GREEDY, "").ok(), "");
}

/// What the conversation of `lines` has become.
fn position(arguments: &[&str], lines: &str) -> usize {
    let text = piped(arguments, &format!("{lines}/stats\n")).ok();
    let position = text.lines().find_map(|line| line.strip_prefix("position   ")).expect("a position");
    position.replace(',', "").parse().expect("a number")
}

#[test]
fn turns_end_where_they_are_told_to() {
    let options = ["--seed", "2", "-n", "300", "--temperature", "1", "--min-p", "0.1"];
    let turn = |turns: &str| piped(&options, &format!("/turns {turns}\nKING:\n")).ok();
    let whole = turn("length");
    assert_eq!(whole, generate(&[&["-p", "KING:", "--no-echo", "-q"], &options[..]].concat()).ok());
    assert_eq!(turn("Paragraph"), piped(&options, "KING:\n").ok(), "the default");
    let paragraph = turn("paragraph");
    let line = turn("line");
    // The white space before the first word ends nothing; the end of a turn is not shown twice.
    assert!(paragraph.starts_with('\n') && !paragraph.trim().contains("\n\n"), "{paragraph:?}");
    assert!(line.starts_with('\n') && !line.trim().contains('\n'), "{line:?}");
    assert!(whole.starts_with(&format!("{paragraph}\n")) && paragraph.starts_with(&line), "{whole}");
    assert!(line.len() < paragraph.len() && paragraph.len() < 300, "{whole}");
    // The line ends that are not shown belong to the conversation.
    let count = "KING:".len() + paragraph.len() + "\n".len();
    assert_eq!(position(&options, "KING:\n"), count);
    assert_eq!(position(&options, "/turns line\nKING:\n"), "KING:".len() + line.len());
}

/// A turn that is not complete does not run into what is typed next.
#[test]
fn what_is_typed_begins_a_line_or_a_paragraph() {
    let turns = "To be or \nof\n";
    for (option, between) in [("length", ""), ("line", "\n"), ("paragraph", "\n\n")] {
        let options = [&GREEDY[..], &["--turns", option]].concat();
        let text = piped(&options, turns).ok();
        let next = text.strip_prefix("the world\n").expect("a first turn");
        let prompt = format!("To be or the world{between}of");
        let expected = generate(&["-p", &prompt, "--greedy", "-n", "9", "--no-echo", "-q"]).ok();
        assert_eq!(next.trim(), expected.trim(), "{option}");
        assert_eq!(position(&options, turns), prompt.len() + 9, "{option}");
    }
    // A stop text is no part of the conversation, the line end after a complete turn is.
    let stopped = ["--temperature", "0", "-n", "300", "--stop", "\n\n"];
    let complete = ["--temperature", "0", "-n", "300"];
    assert_eq!(piped(&stopped, "To be or \nof\n").ok(), piped(&complete, "To be or \nof\n").ok());
    // Beams are cut where the turn ends.
    let beams = ["--num-beams", "2", "-n", "120"];
    let whole = piped(&beams, "/turns length\nKING:\n").ok();
    let turn = piped(&beams, "/turns line\nKING:\n").ok();
    assert!(whole.starts_with(&turn) && turn.len() < whole.len(), "{whole:?} {turn:?}");
    // Ends of sequence are banned before min_new_tokens, line ends are not.
    let long = ["--seed", "1", "-n", "300", "--temperature", "1", "--turns", "line", "--min-new-tokens", "100"];
    let text = piped(&long, "KING:\n").ok();
    let whole = piped(&[&long[..], &["--turns", "length"]].concat(), "KING:\n").ok();
    assert!(whole.starts_with(&text) && !text[100..text.len() - 1].contains('\n'), "{text:?}");
}

#[test]
fn settings_persist_and_are_shown() {
    let lines = "/temp 0\n/max_tokens 3\n/top_k 5\n/stop x\\n\nTo be or \n/max_tokens\n/top-k\n/settings\n";
    let text = piped(&["--seed", "4"], lines).ok();
    let expected = "the\nmax_tokens 3\ntop_k 5\n\
        temp        0\ntop_k       5\ntop_p       1\nmin_p       0.1\npenalty     1\nmax_tokens  3\n\
        beams       1\nseed        4\nstop        \"x\\n\"\n\
        turns       paragraph (stop texts end a turn instead)\ncontext     256 (older text fades with time constant 128)\n";
    assert_eq!(text, expected);
}

#[test]
fn a_mistake_is_explained_and_changes_nothing() {
    let lines = "/temp -1\n/temp hot\n/top_p 0\n/max_tokens -3\n/beams 0\n/context x\n/turns page\n/tmep 1\n/xyzzy\n/undo\n/retry\n\
        /save\n/load missing.state\nTo be or \n";
    let run = piped(&GREEDY, lines);
    insta::assert_snapshot!("interactive-errors", run.stderr);
    assert_eq!(run.ok(), "the world\n");
}

#[test]
fn help_lists_the_commands_with_and_without_a_slash() {
    let help = piped(&[], "help\n").ok();
    insta::assert_snapshot!("interactive-help", help);
    assert_eq!(piped(&[], "/help\n").ok(), help);
    for line in ["exit", "quit", "/quit", "/exit"] {
        assert_eq!(piped(&[], &format!("{line}\nKING:\n")).ok(), "");
    }
}

#[test]
fn undo_and_retry_restore_exactly() {
    let options = ["--seed", "5", "-n", "60", "--temperature", "1"];
    let text = |lines: &str| piped(&options, lines).ok();
    // A backslash at its end joins a line to the next.
    let plain = text("/temp 1\nKING:\\\nand now\n/stats\n");
    assert!(plain.contains("\ntokens     13 read, "), "{plain}");

    let turns = text("KING:\nand now\n");
    let undone = text("KING:\nsomething else\n/undo\nand now\n");
    let others = text("KING:\nsomething else\n");
    assert_ne!(turns, others);
    let first = text("KING:\n");
    assert_eq!(undone, format!("{others}{}", turns.strip_prefix(&first).expect("the same beginning")));
    // All the way back to nothing.
    let back = text("KING:\nand now\n/undo\n/undo\nKING:\nand now\n");
    assert_eq!(back, format!("{turns}{turns}"));

    // A retry has a seed of its own; taken back, it leaves what was before the turn.
    let retried = text("KING:\n/retry\n/undo\nKING:\nand now\n");
    let second = retried.strip_prefix(&first).and_then(|rest| rest.strip_suffix(&turns)).expect("the same ends");
    assert!(!second.is_empty() && second != first);
    assert_eq!(piped(&["--seed", "6", "-n", "60", "--temperature", "1"], "KING:\n").ok(), second);
    // A greedy retry says the same.
    assert_eq!(piped(&GREEDY, "To be or \n/retry\n").ok(), "the world\nthe world\n");
    // Reset forgets.
    assert_eq!(text("KING:\nand now\n/reset\nKING:\nand now\n"), format!("{turns}{turns}"));
}

#[test]
fn only_so_many_turns_are_kept() {
    let options = ["--seed", "5", "-n", "1"];
    let turns = "a\n".repeat(70);
    let stats = piped(&options, &(turns.clone() + "/stats\n")).ok();
    let kept = stats.lines().find_map(|line| line.strip_prefix("undo       ")?.split(' ').next()).expect("a number");
    let kept: usize = kept.parse().expect("a number");
    assert!((1..=64).contains(&kept), "{stats}");
    let run = piped(&options, &(turns + &"/undo\n".repeat(kept + 1)));
    assert_eq!(run.stderr, "error: the turns before this one are not kept; /reset starts anew\n");
}

#[test]
fn a_conversation_is_saved_and_goes_on_in_a_new_process() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("talk.state");
    let (save, load) = (format!("/save {}\n", path(&file)), format!("/load {}\n", path(&file)));
    let options = ["--seed", "3", "-n", "50", "--temperature", "1"];
    let turns = ["KING:\n", "and the queen\n", "\u{e9}t\u{e9}\n", "so\n"];
    let whole = piped(&options, &turns.concat()).ok();
    for split in 0..=turns.len() {
        let first = piped(&options, &(turns[..split].concat() + &save)).ok();
        let rest = piped(&["-n", "50", "--temperature", "1"], &(load.clone() + &turns[split..].concat())).ok();
        if split > 0 {
            assert_eq!(first + &rest, whole, "saved after {split} turns");
        }
    }
    // What cannot be loaded leaves the conversation as it is.
    std::fs::write(&file, "nonsense").unwrap();
    let run = piped(&options, &format!("{}{load}{}", turns[0], turns[1..].concat()));
    assert!(run.stderr.contains("is not a state file"), "{run:?}");
    assert_eq!(run.ok(), whole);
}

#[test]
fn beams_stops_and_contexts_work_in_the_loop() {
    assert_eq!(piped(&GREEDY, "/stop ld\nTo be or \n").ok(), "the wor\n");
    let beams = generate(&["-p", "To be or ", "--num-beams", "4", "-n", "9", "--no-echo", "--quiet"]).ok();
    assert_eq!(piped(&["-n", "9"], "/beams 4\nTo be or \n").ok(), beams);
    let text = |context: &str| {
        let lines = format!("/context {context}\n{}\n/context\n", "Speak, speak. ".repeat(10));
        piped(&["--temperature", "0", "-n", "40"], &lines).ok()
    };
    assert!(text("full").ends_with("\ncontext full\n"));
    assert_ne!(text("5").lines().next(), text("full").lines().next());
}

#[cfg(unix)]
mod terminal {
    use super::TempDir;
    use rexpect::reader::Options;
    use rexpect::session::{PtySession, spawn_with_options};
    use std::path::Path;

    /// Long enough for a machine under load; nothing waits for it where the program answers.
    const PATIENCE: u64 = 1_800_000;

    /// The loop on a terminal, with its state in `folder`.
    fn start(folder: &Path, arguments: &[&str], no_colour: bool) -> PtySession {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bdh-gpu"));
        command.args(["interactive", "--device", "cpu", "--temperature", "0"]).args(arguments);
        command.env("XDG_STATE_HOME", folder).env("TERM", "xterm").env_remove("NO_COLOR");
        if no_colour {
            command.env("NO_COLOR", "1");
        }
        let options = Options::new().timeout_ms(Some(PATIENCE)).strip_ansi_escape_codes(false);
        let mut session = spawn_with_options(command, options).expect("the program starts");
        session.exp_string("BDH Interactive Generation").expect("a banner");
        session.exp_string("Model: bdh-shakespeare (1.6M parameters) on CPU").expect("the model and the device");
        session.exp_string("Type 'quit' to exit, 'help' for commands").expect("a way out");
        session
    }

    /// Types keys as soon as the loop reads them: what comes earlier is thrown away.
    fn keys(session: &mut PtySession, keys: &str) {
        // The program switches bracketed paste on whenever it begins to read.
        session.exp_string("\x1b[?2004h").expect("a prompt");
        session.send(keys).expect("a terminal");
        session.flush().expect("a terminal");
    }

    fn line(session: &mut PtySession, text: &str) {
        keys(session, &format!("{text}\n"));
    }

    const CTRL_C: &str = "\x03";
    const CTRL_D: &str = "\x04";

    fn code(mut session: PtySession) -> i32 {
        session.exp_eof().expect("the end");
        match session.process().wait().expect("a status") {
            rexpect::process::WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_session_at_a_terminal() {
        let folder = TempDir::new().unwrap();
        let mut session = start(folder.path(), &["-n", "9"], true);
        line(&mut session, "To be or ");
        session.exp_string("the world\r\n(max_tokens reached; Enter writes on)").unwrap();
        line(&mut session, "/tmep 1");
        session.exp_string("error: there is no command /tmep; did you mean /temp?").unwrap();
        line(&mut session, "/max_tokens 4");
        session.exp_string("max_tokens 4\r\n").unwrap();
        line(&mut session, "/undo");
        session.exp_string("Took back one turn; at position 0").unwrap();
        line(&mut session, "/turns length");
        session.exp_string("turns length\r\n").unwrap();
        line(&mut session, "To be or ");
        let shown = session.exp_string("\x1b[?2004h").unwrap();
        assert!(shown.ends_with("the \r\n"), "{shown:?}");
        // Completion of a command.
        session.send("/sett\t").unwrap();
        session.flush().unwrap();
        session.exp_string("/settings ").unwrap();
        session.send_line("").unwrap();
        session.exp_string("max_tokens  4").unwrap();
        line(&mut session, "quit");
        assert_eq!(code(session), 0);
    }

    #[test]
    fn several_lines_are_one_turn_and_enter_writes_on() {
        let folder = TempDir::new().unwrap();
        let mut session = start(folder.path(), &["-n", "1"], true);
        let mut position = |turn: &str, expected: &str| {
            keys(&mut session, turn);
            session.exp_string("Enter writes on").unwrap();
            line(&mut session, "/stats");
            session.exp_string(&format!("position   {expected}\r\n")).unwrap();
        };
        // A backslash before Enter, Alt-Enter, and a paste.
        position("KING:\\\nSo\x1b\rbe it\n", "15");
        position("\x1b[200~KING:\r\nSo\rbe it\x1b[201~\n", "32");
        // Enter alone, and with nothing but white space before it.
        position("\n", "33");
        position("  \n", "34");
        line(&mut session, "/undo");
        session.exp_string("at position 33").unwrap();
        // A command has one line.
        line(&mut session, "/stop a\\");
        session.exp_string("stop \"a\\\\\"\r\n").unwrap();
        keys(&mut session, CTRL_D);
        assert_eq!(code(session), 0);
    }

    #[test]
    fn ctrl_c_stops_the_text_and_keeps_the_session() {
        let folder = TempDir::new().unwrap();
        let mut session = start(folder.path(), &["-n", "100000000", "--turns", "length"], true);
        for _ in 0..3 {
            line(&mut session, "To be or ");
            // The line itself is echoed before the text comes.
            session.exp_string("To be or ").unwrap();
            session.exp_string("the ").unwrap();
            session.send_control('c').unwrap();
            session.exp_string("(stopped)").unwrap();
        }
        line(&mut session, "/undo");
        session.exp_string("Took back one turn").unwrap();
        line(&mut session, "/stats");
        session.exp_string("2 turns kept").unwrap();
        // At an empty prompt it asks, and a second one ends.
        keys(&mut session, CTRL_C);
        session.exp_string("Press Ctrl-C again to exit").unwrap();
        keys(&mut session, CTRL_C);
        assert_eq!(code(session), 130);
    }

    #[test]
    fn ctrl_c_discards_a_line_and_ctrl_d_ends() {
        let folder = TempDir::new().unwrap();
        let mut session = start(folder.path(), &[], true);
        keys(&mut session, "half a line");
        session.exp_string("half a line").unwrap();
        session.send_control('c').unwrap();
        // The line is gone, so this is an empty prompt: the first of two.
        keys(&mut session, CTRL_C);
        session.exp_string("Press Ctrl-C again to exit").unwrap();
        keys(&mut session, CTRL_D);
        assert_eq!(code(session), 0);
    }

    #[test]
    fn history_outlives_the_program_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = TempDir::new().unwrap();
        let mut session = start(folder.path(), &["-n", "3"], true);
        line(&mut session, "To be or ");
        session.exp_string("the\r\n").unwrap();
        line(&mut session, "quit");
        assert_eq!(code(session), 0);
        let history = folder.path().join("bdh-gpu/history");
        assert!(std::fs::read_to_string(&history).unwrap().contains("To be or "));
        assert_eq!(history.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mode = history.parent().unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let mut session = start(folder.path(), &["-n", "3"], true);
        // Up twice: quit, then the text.
        keys(&mut session, "\x1b[A\x1b[A");
        session.exp_string("To be or ").unwrap();
        session.send_line("").unwrap();
        session.exp_string("the\r\n").unwrap();
        keys(&mut session, CTRL_D);
        assert_eq!(code(session), 0);
    }

    #[test]
    fn colours_are_for_those_who_want_them() {
        for no_colour in [false, true] {
            let folder = TempDir::new().unwrap();
            let mut session = start(folder.path(), &[], no_colour);
            line(&mut session, "/nonsense");
            let before = session.exp_string("there is no command").unwrap();
            assert_eq!(before.contains("\x1b[1m\x1b[31m"), !no_colour, "{before:?}");
            session.exp_string("\x1b[?2004h").unwrap();
            let prompt = session.exp_string("> ").unwrap();
            assert_eq!(prompt.contains("\x1b[1;32m"), !no_colour, "{prompt:?}");
            session.send_control('d').unwrap();
            assert_eq!(code(session), 0);
        }
    }
}

#[cfg(unix)]
#[test]
fn file_names_are_read_as_tab_and_shells_write_them() {
    let home = TempDir::new().expect("a directory");
    let mut command = program();
    command.env("HOME", home.path()).current_dir(home.path());
    let lines = "To be or \n/save ~/a.state\n/save \"b c.state\"\n/save d\\ e.state\n/save f g.state\n/reset\n\
        /load a.state\n/load b\\ c.state\n/load 'd e.state'\n/load f\\ g.state\n/load ~/f g.state\n of\n";
    command.args(["interactive", "--device", "cpu", "--quiet"]).args(GREEDY).write_stdin(lines);
    let run = run_command(&mut command);
    assert_eq!(run.stderr, "");
    assert!(run.ok().starts_with("the world\n"));
    let mut names: Vec<String> = std::fs::read_dir(home.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter(|name| name.ends_with(".state"))
        .collect();
    names.sort();
    assert_eq!(names, ["a.state", "b c.state", "d e.state", "f g.state"]);
}
