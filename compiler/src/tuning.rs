//! The file that `bertc tune` writes and `--tuning` reads: JSON, a list of products with what they are fastest with.

use std::path::Path;

use bertc_backends::tuning::{Choice, Product, Tuning};
use bertc_ir::Diag;
use serde_json::{Value, json};

/// What the file says of its form.
const FORMAT: &str = "bertc tuning 1";

/// The file's text. `machine` is for people.
pub fn write(tuning: &Tuning, machine: &str) -> String {
    let product = |(p, c): (&Product, &Choice)| {
        json!({
            "k": p.k,
            "n": p.n,
            "type": if p.bf16 { "bf16" } else { "f32" },
            "lanes": p.lanes,
            "tile_rows": c.rows,
            "tile_registers": c.vectors,
            "unroll": c.unroll,
            "task_rows": c.task_rows,
            "task_columns": c.task_columns,
        })
    };
    let products: Vec<Value> = tuning.iter().map(product).collect();
    let text = json!({ "format": FORMAT, "machine": machine, "products": products });
    format!("{text:#}\n")
}

/// Reads the file at `path`.
///
/// # Errors
/// It can't be read, or is no such file.
pub fn read(path: &Path) -> Result<Tuning, Diag> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| Diag::new(format!("can't read '{shown}': {e}")))?;
    parse(&text)
        .map_err(|e| Diag::new(format!("'{shown}': {e}")).note("`bertc tune MODEL.onnx -o FILE` writes such files"))
}

/// Reads the file's text.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Tuning, String> {
    let v: Value = serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}"))?;
    if v["format"] != FORMAT {
        return Err(format!("its \"format\" is {}, expected \"{FORMAT}\"", v["format"]));
    }
    let products = v["products"].as_array().ok_or("\"products\" is no list")?;
    let mut tuning = Tuning::new();
    for (i, p) in products.iter().enumerate() {
        let number = |name: &str| {
            let found = p[name].as_i64().filter(|n| *n > 0);
            found.ok_or_else(|| format!("product {i}: \"{name}\" is {}, expected a positive number", p[name]))
        };
        let bf16 = match p["type"].as_str() {
            Some("f32") => false,
            Some("bf16") => true,
            _ => return Err(format!("product {i}: \"type\" is {}, expected \"f32\" or \"bf16\"", p["type"])),
        };
        let lanes = u8::try_from(number("lanes")?).map_err(|_| format!("product {i}: too many lanes"))?;
        let product = Product { k: number("k")?, n: number("n")?, bf16, lanes };
        let choice = Choice {
            rows: number("tile_rows")?,
            vectors: number("tile_registers")?,
            unroll: number("unroll")?,
            task_rows: number("task_rows")?,
            task_columns: number("task_columns")?,
        };
        if tuning.insert(product, choice).is_some() {
            return Err(format!("product {i} is there twice: {} x {}", product.k, product.n));
        }
    }
    Ok(tuning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let choice = Choice { rows: 12, vectors: 2, unroll: 4, task_rows: 64, task_columns: 256 };
        let product = |k, bf16| Product { k, n: 64, bf16, lanes: 16 };
        let tuning = Tuning::from([
            (product(32, false), choice),
            (product(32, true), Choice { rows: 8, ..choice }),
            (product(48, false), choice),
        ]);
        let text = write(&tuning, "a \"machine\"");
        assert_eq!(parse(&text), Ok(tuning));
        for (from, to, why) in [
            (FORMAT, "bertc tuning 2", "expected \"bertc tuning 1\""),
            ("\"k\": 32", "\"k\": 0", "\"k\" is 0"),
            ("\"k\": 48", "\"k\": 32", "twice"),
            ("\"unroll\": 4", "\"unroll\": \"x\"", "\"unroll\" is \"x\""),
            ("\"type\": \"bf16\"", "\"type\": 16", "\"type\" is 16"),
            ("\"lanes\": 16", "\"lanes\": 1000", "too many lanes"),
            ("{", "", "no JSON"),
        ] {
            let e = parse(&text.replacen(from, to, 1)).unwrap_err();
            assert!(e.contains(why), "{e}");
        }
    }
}
