//! What `--prune` and `--block` say.

use bertc_passes::BLOCKS;

use crate::options::CompileOptions;

/// Parses a sparsity, such as `0.8`, into millionths.
///
/// # Errors
/// Anything but a number from 0 to less than 1.
pub fn parse_sparsity(s: &str) -> Result<u32, String> {
    let found = s.parse::<f64>().ok().filter(|b| (0.0..1.0).contains(b));
    let found = found.map(|b| ((b * 1e6).round() as u32).min(999_999));
    found.ok_or_else(|| "expected the part to remove, from 0 to less than 1, such as 0.8".into())
}

/// Parses outputs × inputs of a block, such as `16x4`; nothing stands for `auto`.
///
/// # Errors
/// A shape that there is no kernel for.
pub fn parse_block(s: &str) -> Result<Option<[usize; 2]>, String> {
    let named = |block: &[usize; 2]| format!("{}x{}", block[0], block[1]);
    if s == "auto" {
        return Ok(None);
    }
    let found = BLOCKS.iter().find(|b| named(b) == s);
    let all: Vec<String> = BLOCKS.iter().map(named).collect();
    found.copied().map(Some).ok_or_else(|| format!("expected outputs x inputs: auto, {}", all.join(", ")))
}

impl CompileOptions {
    /// The block that matrices are pruned in.
    pub fn block_shape(&self) -> [usize; 2] {
        // `auto`: as many outputs as a packed panel has columns, and as many inputs as a lane of the products takes at a time.
        // Lanes of integers take four inputs, those of bf16 two of the four; the layouts are one for all targets.
        let auto = if self.int8 || self.bf16 { [16, 4] } else { [16, 1] };
        self.block.unwrap_or(auto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparsities_are_parts() {
        assert_eq!(
            (parse_sparsity("0.8"), parse_sparsity("0"), parse_sparsity("0.9999999")),
            (Ok(800_000), Ok(0), Ok(999_999))
        );
        for s in ["", "1", "-0.1", "NaN", "80%", "80"] {
            assert!(parse_sparsity(s).unwrap_err().contains("such as 0.8"), "{s}");
        }
    }

    #[test]
    fn blocks_are_those_of_kernels() {
        assert_eq!((parse_block("auto"), parse_block("16x4")), (Ok(None), Ok(Some([16, 4]))));
        for s in ["", "2x2", "4", "4x", "04x4", "4x4x4"] {
            assert!(parse_block(s).unwrap_err().contains("auto, 1x4, 4x1"), "{s}");
        }
        let mut o = CompileOptions::default();
        assert_eq!(o.block_shape(), [16, 1]);
        o.int8 = true;
        assert_eq!(o.block_shape(), [16, 4]);
        o.block = Some([1, 4]);
        assert_eq!(o.block_shape(), [1, 4]);
    }
}
