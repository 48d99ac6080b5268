//! Matrices of which most blocks are zero: what they hold, and in which order.
//!
//! A lane of 32 bits is what one multiplication takes: an f32, two bf16 or four i8 of neighbouring inputs. A block is
//! `rows` outputs × `steps` lanes. Blocks that hold anything but zeros are kept, in three arrays:
//!
//! - *values*: the blocks' lanes, block by block; within a block lane by lane of the inputs, and there output by output;
//! - *indices*: a u16 for each block;
//! - *starts*: where the runs of blocks start, with the end of the last one behind.
//!
//! A run of blocks of one step belongs to `rows` outputs, its indices are the lanes of the inputs, ascending. Blocks of
//! several steps (of one output) lie the other way round: a run belongs to [`GROUP`] outputs and one block of inputs, its
//! indices are the outputs in the group, ascending; behind the runs of all inputs come those of the next group.
//! Outputs are padded with zeros to a multiple of [`PANEL`].

use std::fmt;

use bertc_ir::{DType, Diag};
use half::{bf16, f16};

use crate::pack::{PANEL, matrix};
use crate::plan::{Lane, Part, SparseArray};

/// Outputs that runs of blocks of several steps belong to.
pub const GROUP: usize = 64;

/// Size of the blocks of a sparse matrix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Blocks {
    /// Outputs: 1, 4 or 16.
    pub rows: u8,
    /// Lanes of inputs: 1, or with one row as many as hold four inputs.
    pub steps: u8,
}

impl Blocks {
    /// Every form for a kind of lane.
    pub fn all(lane: Lane) -> Vec<Blocks> {
        let one = |rows| Blocks { rows, steps: 1 };
        let mut all = vec![one(16), one(4), one(1)];
        let steps = (4 / lane.elements()) as u8;
        all.extend((steps > 1).then_some(Blocks { rows: 1, steps }));
        all
    }

    /// Whether runs belong to inputs instead of outputs.
    pub fn by_inputs(self) -> bool {
        self.steps > 1
    }

    /// Lanes of a block.
    pub fn lanes(self) -> usize {
        usize::from(self.rows) * usize::from(self.steps)
    }

    /// Number of runs of a matrix of `k` inputs and `n` outputs, in lanes of `g` elements.
    pub fn runs(self, [k, n]: [usize; 2], g: usize) -> usize {
        let n = n.next_multiple_of(PANEL);
        match self.by_inputs() {
            true => n.div_ceil(GROUP) * (k / g).div_ceil(self.steps.into()),
            false => n / usize::from(self.rows),
        }
    }

    /// Bytes of an array of a matrix of `k` inputs and `n` outputs with `count` blocks.
    pub fn bytes(self, size: [usize; 2], lane: Lane, count: u32, array: SparseArray) -> u64 {
        match array {
            SparseArray::Starts => (self.runs(size, lane.elements()) as u64 + 1) * 4,
            SparseArray::Indices => u64::from(count) * 2,
            SparseArray::Values => u64::from(count) * self.lanes() as u64 * 4,
        }
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.rows, self.steps)
    }
}

/// A matrix as lanes, output by output.
pub struct Lanes {
    /// Outputs, with those that pad them.
    pub outputs: usize,
    /// Lanes of an output.
    pub inputs: usize,
    lanes: Vec<[u8; 4]>,
}

impl Lanes {
    /// Matrices side by side.
    ///
    /// # Errors
    /// They are none, of different heights, have no elements, or don't fit the lanes.
    pub fn of(parts: &[Part], trans: bool, lane: Lane) -> Result<Lanes, Diag> {
        let g = lane.elements();
        let sizes = parts.iter().map(|p| matrix(p, trans)).collect::<Result<Vec<_>, _>>()?;
        let k = sizes.first().map_or(0, |s| s.0);
        let total: usize = sizes.iter().map(|s| s.1).sum();
        let (outputs, inputs) = (total.next_multiple_of(PANEL), k / g);
        if sizes.iter().any(|s| s.0 != k) || k % g != 0 {
            return Err(Diag::new(format!("matrices of {k} rows and others have no common lanes of {g}")));
        }
        let mut lanes = vec![[0; 4]; outputs * inputs];
        let mut first = 0;
        for (part, &(_, n)) in parts.iter().zip(&sizes) {
            let own = &mut lanes[first * inputs..(first + n) * inputs];
            let size = part.dtype().size();
            let elements = part.tensor()?.bytes().chunks_exact(size);
            let convert = converter(part.dtype(), lane)?;
            let width = 4 / g;
            let mut put = |output: usize, input: usize, e: &[u8]| {
                let to = &mut own[output * inputs + input / g];
                to[input % g * width..][..width].copy_from_slice(&convert(e)[..width]);
            };
            if trans {
                elements.enumerate().for_each(|(i, e)| put(i / k, i % k, e));
            } else {
                elements.enumerate().for_each(|(i, e)| put(i % n, i / n, e));
            }
            first += n;
        }
        Ok(Lanes { outputs, inputs, lanes })
    }

    fn at(&self, output: usize, input: usize) -> [u8; 4] {
        self.lanes[output * self.inputs + input]
    }

    /// Whether a lane is more than zeros; a negative zero is one.
    fn any(&self, output: usize, input: usize) -> bool {
        self.lanes[output * self.inputs + input] != [0; 4]
    }

    /// The inputs of which a block of `blocks` that begins at an output holds something.
    fn kept(&self, blocks: Blocks, output: usize) -> impl Iterator<Item = usize> {
        let (rows, steps) = (usize::from(blocks.rows), usize::from(blocks.steps));
        let inside = move |input: usize| {
            let inputs = input * steps..((input + 1) * steps).min(self.inputs);
            (output..output + rows).any(|o| inputs.clone().any(|i| self.any(o, i)))
        };
        (0..self.inputs.div_ceil(steps)).filter(move |&i| inside(i))
    }

    /// How many blocks are not zero.
    pub fn count(&self, blocks: Blocks) -> usize {
        let starts = (0..self.outputs).step_by(blocks.rows.into());
        starts.map(|o| self.kept(blocks, o).count()).sum()
    }

    /// Bytes of an array.
    ///
    /// # Errors
    /// An index has more than 16 bits, or there are not `count` blocks.
    pub fn array(&self, blocks: Blocks, count: u32, array: SparseArray) -> Result<Vec<u8>, Diag> {
        let mut order = Vec::with_capacity(count as usize);
        let mut starts = vec![0u32];
        let mut end = |order: &Vec<(usize, usize, usize)>| starts.push(order.len() as u32);
        let inputs = self.inputs.div_ceil(blocks.steps.into());
        if inputs.max(GROUP) > 1 << 16 {
            return Err(Diag::new(format!("{inputs} blocks of inputs have no indices of 16 bits")));
        }
        if blocks.by_inputs() {
            for first in (0..self.outputs).step_by(GROUP) {
                let mut runs = vec![Vec::new(); inputs];
                for output in first..(first + GROUP).min(self.outputs) {
                    self.kept(blocks, output).for_each(|i| runs[i].push((output, i, output - first)));
                }
                for run in runs {
                    order.extend(run);
                    end(&order);
                }
            }
        } else {
            for output in (0..self.outputs).step_by(blocks.rows.into()) {
                order.extend(self.kept(blocks, output).map(|i| (output, i, i)));
                end(&order);
            }
        }
        if order.len() != count as usize {
            return Err(Diag::new(format!("a sparse matrix has {} blocks of {blocks}, not {count}", order.len())));
        }
        Ok(match array {
            SparseArray::Starts => starts.into_iter().flat_map(u32::to_le_bytes).collect(),
            SparseArray::Indices => order.into_iter().flat_map(|b| (b.2 as u16).to_le_bytes()).collect(),
            SparseArray::Values => {
                let (rows, steps) = (usize::from(blocks.rows), usize::from(blocks.steps));
                let lanes = |(output, input, _): (usize, usize, usize)| {
                    let inside = move |i| i < self.inputs;
                    (input * steps..(input + 1) * steps).flat_map(move |i| {
                        (output..output + rows).map(move |o| if inside(i) { self.at(o, i) } else { [0; 4] })
                    })
                };
                order.into_iter().flat_map(lanes).flatten().collect()
            }
        })
    }
}

/// Makes of a little-endian element its part of a lane, the first bytes.
type Convert = fn(&[u8]) -> [u8; 4];

/// What does so for elements of a type.
fn converter(from: DType, lane: Lane) -> Result<Convert, Diag> {
    fn float(e: [u8; 4]) -> [u8; 4] {
        // Of zeros one is enough.
        if e == (-0f32).to_le_bytes() { [0; 4] } else { e }
    }
    fn half(x: bf16) -> [u8; 4] {
        let [a, b] = if x == bf16::ZERO { [0; 2] } else { x.to_le_bytes() };
        [a, b, 0, 0]
    }
    Ok(match (from, lane) {
        (DType::F32, Lane::One) => |e| float([e[0], e[1], e[2], e[3]]),
        (DType::F16, Lane::One) => |e| float(f16::from_le_bytes([e[0], e[1]]).to_f32().to_le_bytes()),
        (DType::BF16, Lane::One) => |e| float(bf16::from_le_bytes([e[0], e[1]]).to_f32().to_le_bytes()),
        (DType::F32, Lane::Bf16x2) => |e| half(bf16::from_f32(f32::from_le_bytes([e[0], e[1], e[2], e[3]]))),
        (DType::F16, Lane::Bf16x2) => |e| half(bf16::from_f32(f16::from_le_bytes([e[0], e[1]]).to_f32())),
        (DType::BF16, Lane::Bf16x2) => |e| half(bf16::from_le_bytes([e[0], e[1]])),
        (DType::I8, Lane::I8x4) => |e| [e[0], 0, 0, 0],
        _ => return Err(Diag::new(format!("a sparse matrix of {from} has no lanes of {}", lane.dtype()))),
    })
}

#[cfg(test)]
mod tests;
