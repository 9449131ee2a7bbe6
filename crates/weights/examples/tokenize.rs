//! The tokens of texts, for tests that compare tokenizers: reads JSON texts, one on each line, and writes a JSON list of
//! ids for each. `tokenize FILE.gguf` or `tokenize DIRECTORY`.

use std::io::{BufRead, Write};
use std::path::Path;

use backstop_text::Tokenizer;
use backstop_weights::EmbeddedTokenizer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("which tokenizer?")?;
    let path = Path::new(&path);
    let tokenizer = match path
        .extension()
        .is_some_and(|extension| extension == "gguf")
    {
        true => Tokenizer::from_vocabulary(&EmbeddedTokenizer::open(path)?.vocabulary)?,
        false => Tokenizer::from_directory(path)?,
    };
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        let tokens = tokenizer.encode(&text, false)?;
        writeln!(output, "{}", serde_json::to_string(&tokens)?)?;
    }
    Ok(())
}
