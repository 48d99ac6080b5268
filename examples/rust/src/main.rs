//! Embeds sentences with all-MiniLM-L6-v2, compiled into this program, and prints how similar they are.
//!
//!     MINILM=model.onnx cargo run --release -- tokenizer.json "A sentence." "Another one."

mod minilm;

use std::error::Error;

use bertc_rt::ThreadPool;
use tokenizers::Tokenizer;

/// The lengths that the model was trained with end here.
const MAX_TOKENS: usize = 256;

const SENTENCES: [&str; 4] = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "A man is driving a car to the game.",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: embed TOKENIZER.json [SENTENCE]…")?;
    let mut sentences: Vec<String> = args.collect();
    if sentences.is_empty() {
        sentences = SENTENCES.map(String::from).into();
    }
    let mut tokenizer = Tokenizer::from_file(&path).map_err(|e| format!("{path}: {e}"))?;
    // The batch is padded below; the file's own settings pad every sentence to 128 tokens.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| e.to_string())?;

    let mut ids = Vec::new();
    for s in &sentences {
        let encoding = tokenizer.encode(s.as_str(), true).map_err(|e| format!("'{s}': {e}"))?;
        let mut tokens: Vec<i64> = encoding.get_ids().iter().map(|&i| i.into()).collect();
        if tokens.len() > MAX_TOKENS {
            // The last token is the separator, and stays.
            tokens.drain(MAX_TOKENS - 1..tokens.len() - 1);
        }
        ids.push(tokens);
    }
    let pool = ThreadPool::new(0).ok_or("no threads")?;
    let embeddings = minilm::embed(&ids, pool.parallel())?;

    for (a, s) in embeddings.iter().zip(&sentences) {
        let row = embeddings.iter().map(|b| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>());
        let row: Vec<String> = row.map(|dot| format!("{dot:7.4}")).collect();
        println!("{}  {s}", row.join(" "));
    }
    Ok(())
}
