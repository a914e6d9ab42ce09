//! A driver that compiles kernels and computes nothing, fetched by a script in `tests/drivers/`.

use std::process::Command;

/// Environment variable: the script that runs a program on the driver.
const DRIVER: &str = "BDH_TEST_DRIVER";
/// Environment variable: its arguments before the program, if it takes any.
const ARGUMENTS: &str = "BDH_TEST_DRIVER_ARGUMENTS";

/// The program on the driver.
pub fn program() -> Command {
    let driver =
        std::env::var_os(DRIVER).unwrap_or_else(|| panic!("{DRIVER} is not set: use tests/drivers/statistics.sh"));
    let mut command = Command::new(driver);
    command.args(std::env::var(ARGUMENTS).unwrap_or_default().split_whitespace());
    command.arg(env!("CARGO_BIN_EXE_bdh-gpu"));
    command
}
