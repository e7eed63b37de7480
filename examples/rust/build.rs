//! Asks the installation where the library is.
use std::process::Command;

fn main() {
    let output = Command::new("fastgpt-c").args(["config", "--libs"]).output();
    let output = output.expect("fastgpt-c is not on the PATH; type  pip install fastgpt-c");
    for flag in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        println!("cargo:rustc-link-arg={flag}");
    }
    println!("cargo:rerun-if-env-changed=PATH");
}
