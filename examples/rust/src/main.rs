//! What may follow a prompt, and a story that goes on from there.  README.md has the build line.
use std::error::Error;
use std::io::{stdout, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use story::{Context, KvCache, Model, Params, Result, Sampler, Tokenizer};

fn print_likeliest(tokenizer: &Tokenizer, probabilities: &[f32]) -> Result<()> {
    let mut ranked: Vec<i32> = (0..probabilities.len() as i32).collect();
    ranked.sort_by(|&a, &b| probabilities[b as usize].total_cmp(&probabilities[a as usize]));
    for &token in &ranked[..5] {
        let bytes = tokenizer.decode(&[token])?;
        println!("{:5.1}%  {}", 100.0 * probabilities[token as usize], String::from_utf8_lossy(&bytes));
    }
    Ok(())
}

fn tell(model: &Model, prompt: &str) -> Result<()> {
    let tokenizer = Tokenizer::new(model)?;
    let mut context = Context::new(model)?;
    let mut kv = KvCache::new(model)?;
    let mut greedy = Sampler::new(model.n_vocab(), Params::default())?;
    let mut as_is = Sampler::new(model.n_vocab(), Params { temperature: 1.0, ..Params::default() })?;

    let tokens = tokenizer.encode(prompt)?;
    let logits = context.prefill(&mut kv, &tokens)?;
    print_likeliest(&tokenizer, &as_is.probabilities(&logits)?)?;

    kv.truncate(0)?;
    print!("{prompt}");
    context.generate(&mut kv, &mut greedy, &tokenizer, &tokens, 40, |text| {
        print!("{text}");
        match stdout().flush() {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()), // nobody reads on
        }
    })?;
    println!();
    Ok(())
}

fn run(arguments: &[String]) -> std::result::Result<(), Box<dyn Error>> {
    let (file, prompt) = match arguments {
        [_, file, prompt] => (file, prompt),
        _ => return Err("usage: story MODEL.gguf PROMPT".into()),
    };
    if let Err(error) = Model::load("missing.gguf") {
        println!("no story: {error}");
    }
    Ok(tell(&Model::load(file)?, prompt)?)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("story: {error}");
            ExitCode::FAILURE
        }
    }
}
