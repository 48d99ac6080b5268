//! Every order of blocks holds exactly the matrix.

use bertc_ir::{DType, Scalar, Tensor};

use super::*;

const LANES: [Lane; 3] = [Lane::One, Lane::Bf16x2, Lane::I8x4];

fn matrix_of(dtype: DType, [k, n]: [usize; 2], trans: bool, value: impl Fn(usize, usize) -> i64) -> Tensor {
    let at = |i: usize| if trans { value(i / k, i % k) } else { value(i % n, i / n) };
    let scalar = |v: i64| if dtype.is_float() { Scalar::Float(v as f64) } else { Scalar::Int(v.into()) };
    let shape = if trans { vec![n, k] } else { vec![k, n] };
    Tensor::from_scalars(dtype, shape, (0..k * n).map(at).map(scalar))
}

fn numbers<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.chunks_exact(N).map(|b| b.try_into().expect("as many bytes"))
}

/// The matrix that arrays hold: for each output its lanes.
fn rebuilt(lanes: &Lanes, blocks: Blocks, count: u32) -> Vec<Vec<[u8; 4]>> {
    let array = |a| lanes.array(blocks, count, a).unwrap();
    let starts: Vec<usize> = numbers(&array(SparseArray::Starts)).map(|b| i32::from_le_bytes(b) as usize).collect();
    let indices: Vec<usize> = numbers(&array(SparseArray::Indices)).map(|b| u16::from_le_bytes(b).into()).collect();
    let values: Vec<[u8; 4]> = numbers(&array(SparseArray::Values)).collect();
    assert_eq!((indices.len(), values.len()), (count as usize, count as usize * blocks.lanes()));
    let steps = usize::from(blocks.steps);
    let inputs = lanes.inputs.next_multiple_of(steps);
    let mut out = vec![vec![[0; 4]; inputs]; lanes.outputs];
    for (run, ends) in starts.windows(2).enumerate() {
        assert!(indices[ends[0]..ends[1]].is_sorted_by(|a, b| a < b), "indices ascend");
        for b in ends[0]..ends[1] {
            let (output, input) = match blocks.by_inputs() {
                true => (run / (inputs / steps) * GROUP + indices[b], run % (inputs / steps) * steps),
                false => (run * usize::from(blocks.rows), indices[b]),
            };
            for (i, &lane) in values[b * blocks.lanes()..(b + 1) * blocks.lanes()].iter().enumerate() {
                let rows = usize::from(blocks.rows);
                out[output + i % rows][input + i / rows] = lane;
            }
        }
    }
    out
}

#[test]
fn every_layout_goes_there_and_back() {
    for (k, n) in [(4, 1), (12, 16), (20, 17), (36, 130)] {
        for every in [1, 2, 5, 1000] {
            for lane in LANES {
                for trans in [false, true] {
                    // Also a matrix of zeros, since none of few is the thousandth.
                    let value = |o: usize, i: usize| {
                        let kept = o != 2 && (o == 3 || (o * 37 + i / 4 * 11 + 1).is_multiple_of(every));
                        if kept { (o + i) as i64 % 100 + 1 } else { 0 }
                    };
                    let t = matrix_of(lane.dtype(), [k, n], trans, value);
                    let lanes = Lanes::of(&[t.into()], trans, lane).unwrap();
                    let g = lane.elements();
                    assert_eq!((lanes.outputs, lanes.inputs), (n.next_multiple_of(16), k / g));
                    for blocks in Blocks::all(lane) {
                        let count = lanes.count(blocks) as u32;
                        let got = rebuilt(&lanes, blocks, count);
                        for (o, row) in got.iter().enumerate() {
                            for (i, l) in row.iter().enumerate() {
                                let e = |j: usize| if o < n && i * g + j < k { value(o, i * g + j) } else { 0 };
                                let want: Vec<u8> = match lane {
                                    Lane::One => (e(0) as f32).to_le_bytes().to_vec(),
                                    Lane::Bf16x2 => {
                                        [e(0), e(1)].map(|v| bf16::from_f32(v as f32).to_le_bytes()).concat()
                                    }
                                    Lane::I8x4 => [e(0), e(1), e(2), e(3)].map(|v| v as i8 as u8).to_vec(),
                                };
                                assert_eq!(l[..], want, "{lane:?} {blocks} output {o} input {i}");
                            }
                        }
                        for a in SparseArray::ALL {
                            let bytes = lanes.array(blocks, count, a).unwrap().len() as u64;
                            assert_eq!(bytes, blocks.bytes([k, n], lane, count, a), "{blocks} {}", a.name());
                            let e = lanes.array(blocks, count + 1, a).unwrap_err();
                            assert!(e.message.contains(&format!("has {count} blocks")), "{e}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn parts_are_one_matrix() {
    let value = |o: usize, i: usize| i64::from((o + i).is_multiple_of(3));
    let whole = matrix_of(DType::F32, [8, 40], false, value);
    let parts = [(0, 16), (16, 40)]
        .map(|(from, to)| Part::from(matrix_of(DType::F32, [8, to - from], false, move |o, i| value(o + from, i))));
    for blocks in Blocks::all(Lane::One) {
        let (a, b) = (Lanes::of(&[whole.clone().into()], false, Lane::One), Lanes::of(&parts, false, Lane::One));
        let (a, b) = (a.unwrap(), b.unwrap());
        let count = a.count(blocks) as u32;
        for array in SparseArray::ALL {
            assert_eq!(a.array(blocks, count, array).unwrap(), b.array(blocks, count, array).unwrap());
        }
    }
}

#[test]
fn what_has_no_lanes_is_an_error() {
    let of = |t: Tensor, lane| Lanes::of(&[t.into()], false, lane).err().unwrap().message;
    assert!(of(Tensor::from_f32(vec![4], &[0.0; 4]), Lane::One).contains("rank 1"));
    assert!(of(Tensor::from_f32(vec![3, 1], &[0.0; 3]), Lane::Bf16x2).contains("no common lanes"));
    assert!(of(Tensor::from_f32(vec![4, 1], &[0.0; 4]), Lane::I8x4).contains("no lanes of i8"));
    // More inputs than 16 bits count, and a negative zero, which is none to be kept.
    let long = Lanes::of(&[Tensor::from_f32(vec![1 << 17, 1], &[-0.0; 1 << 17]).into()], false, Lane::One).unwrap();
    let one = Blocks { rows: 1, steps: 1 };
    assert_eq!(long.count(one), 0);
    assert!(long.array(one, 0, SparseArray::Indices).unwrap_err().message.contains("16 bits"));
}
