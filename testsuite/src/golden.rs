//! Golden inputs and outputs: npz files with keys `c0/in:NAME`, `c0/out:NAME`, `c1/…`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use ndarray_npy::NpzReader;

/// One case: inputs (all int64) and expected outputs by name.
#[derive(Debug)]
pub struct Case {
    /// Name, for example `c0`.
    pub name: String,
    /// Inputs by name.
    pub inputs: BTreeMap<String, ArrayD<i64>>,
    /// Expected outputs by name, as f32.
    pub outputs: BTreeMap<String, ArrayD<f32>>,
}

/// Reads all cases of a golden file.
///
/// # Errors
/// A file that can't be read, or holds other keys or types than goldens do.
pub fn read(path: &Path) -> Result<Vec<Case>, String> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut npz = NpzReader::new(File::open(path).map_err(|e| at(&e))?).map_err(|e| at(&e))?;
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    for key in npz.names().map_err(|e| at(&e))? {
        let plain = key.strip_suffix(".npy").unwrap_or(&key);
        let (case, rest) = plain.split_once('/').ok_or_else(|| at(&format!("unexpected key '{key}'")))?;
        let c = cases.entry(case.to_string()).or_insert_with(|| Case {
            name: case.to_string(),
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
        });
        if let Some(name) = rest.strip_prefix("in:") {
            let a = npz.by_name::<ndarray::OwnedRepr<i64>, IxDyn>(&key).map_err(|e| at(&e))?;
            c.inputs.insert(name.to_string(), a);
        } else if let Some(name) = rest.strip_prefix("out:") {
            let a = npz.by_name::<ndarray::OwnedRepr<f32>, IxDyn>(&key).map_err(|e| at(&e))?;
            c.outputs.insert(name.to_string(), a);
        } else {
            return Err(at(&format!("unexpected key '{key}'")));
        }
    }
    Ok(cases.into_values().collect())
}

/// Largest |got − expected| over the largest |expected|; infinite if a value is NaN on one side only.
pub fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    if got.len() != expected.len() {
        return f64::INFINITY;
    }
    let scale = expected.iter().fold(0f64, |a, v| a.max(v.abs().into()));
    let mut worst = 0f64;
    for (g, e) in got.iter().zip(expected) {
        if g.is_nan() != e.is_nan() {
            return f64::INFINITY;
        }
        if !e.is_nan() {
            worst = worst.max((f64::from(*g) - f64::from(*e)).abs());
        }
    }
    if scale == 0.0 { worst } else { worst / scale }
}
