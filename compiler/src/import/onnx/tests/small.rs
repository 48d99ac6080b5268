//! Types of 8 bits and fewer that the IR doesn't have.

use bertc_ir::DType;

use super::*;

/// ONNX's numbers of the floats, with a few codes that the standard gives values of.
const FLOATS: [(i32, &[(u8, f32)]); 6] = [
    (17, &[(0x01, 0.001953125), (0x08, 0.015625), (0x38, 1.0), (0x7e, 448.0), (0xfe, -448.0)]),
    (18, &[(0x01, 0.0009765625), (0x40, 1.0), (0x7f, 240.0), (0xff, -240.0)]),
    (19, &[(0x01, 1.0 / 65536.0), (0x3c, 1.0), (0x7b, 57344.0), (0xfc, f32::NEG_INFINITY)]),
    (20, &[(0x01, 1.0 / 131072.0), (0x40, 1.0), (0x7f, 57344.0), (0xff, -57344.0)]),
    (23, &[(0x01, 0.5), (0x02, 1.0), (0x07, 6.0), (0x0f, -6.0)]),
    (24, &[(0x00, 5.877472e-39), (0x7f, 1.0), (0x80, 2.0), (0xfe, 1.7014118e38)]),
];

fn codes(n: usize) -> Tensor {
    Tensor::new(DType::U8, vec![n], (0..n).map(|i| i as u8).collect::<Vec<_>>().into()).expect("bytes")
}

/// What a tensor is in a type.
fn encoded(to: i32, x: &[f32], attributes: Vec<AttributeProto>) -> Vec<u8> {
    let attributes = [vec![int("to", to.into())], attributes].concat();
    let m = M::new(25).input("x", F32, &x.len().to_string()).node("Cast", "x", "y", attributes).output("y");
    m.run(&[Tensor::from_f32(vec![x.len()], x)]).bytes().to_vec()
}

/// What all codes of a type mean.
fn decoded(from: i32) -> Vec<f32> {
    let n = if from == 23 { 16 } else { 256 };
    let m = M::new(25).input("x", from, &n.to_string()).node("Cast", "x", "y", vec![int("to", F32.into())]).output("y");
    m.run(&[codes(n)]).to_f64_vec().iter().map(|&v| v as f32).collect()
}

#[test]
fn codes_mean_what_the_standard_says() {
    for (ty, known) in FLOATS {
        let all = decoded(ty);
        for &(code, value) in known {
            assert_eq!(all[usize::from(code)], value, "code {code:#x} of type {ty}");
        }
        // As a constant, too.
        let m = M::new(25).bytes("x", ty, &[2], if ty == 23 { &[0x21] } else { &[1, 2] });
        let m = m.node("Cast", "x", "y", vec![int("to", F32.into())]).output("y");
        close(&m.run(&[]), &[2], &[all[1].into(), all[2].into()]);
    }
}

#[test]
fn values_that_there_are_stay_as_they_are() {
    for (ty, _) in FLOATS {
        let all = decoded(ty);
        let number = |c: &usize| !all[*c].is_nan() && all[*c].is_finite();
        let there: Vec<usize> = (0..all.len()).filter(number).collect();
        let values: Vec<f32> = there.iter().map(|&c| all[c]).collect();
        let want: Vec<u8> = there.iter().map(|&c| c as u8).collect();
        // There is one NaN, which in 4 bits is a negative zero.
        assert_eq!(encoded(ty, &values, vec![]), want, "type {ty}");
        let nan = encoded(ty, &[f32::NAN], vec![])[0];
        assert!(all[usize::from(nan)].is_nan() || ty == 23, "type {ty}");
    }
}

#[test]
fn values_between_two_are_rounded_to_the_nearest_and_ties_to_even() {
    for (ty, _) in FLOATS.iter().filter(|(ty, _)| *ty != 24) {
        let all = decoded(*ty);
        let positive: Vec<f32> = all[..all.len() / 2].iter().copied().filter(|v| v.is_finite()).collect();
        let mut given = Vec::new();
        let mut want = Vec::new();
        for (i, pair) in positive.windows(2).enumerate() {
            let tie = (pair[0] + pair[1]) / 2.0;
            let even = i + i % 2;
            let cases = [(tie.next_down(), i), (tie, even), (tie.next_up(), i + 1)];
            for (x, code) in cases {
                given.extend([x, -x]);
                // The zero of types that have one only has no sign.
                let sign = if code == 0 && matches!(ty, 18 | 20) { 0 } else { all.len() / 2 };
                want.extend([code as u8, (code + sign) as u8]);
            }
        }
        assert_eq!(encoded(*ty, &given, vec![]), want, "type {ty}");
    }
}

#[test]
fn what_is_beyond_is_cut_off_or_not() {
    let x = [f32::INFINITY, f32::NEG_INFINITY, 1e6, -1e6];
    let cut = [
        (17, [0x7e, 0xfe, 0x7e, 0xfe]),
        (18, [0x7f, 0xff, 0x7f, 0xff]),
        (19, [0x7b, 0xfb, 0x7b, 0xfb]),
        (20, [0x7f, 0xff, 0x7f, 0xff]),
        (23, [0x7, 0xf, 0x7, 0xf]),
    ];
    for (ty, want) in cut {
        assert_eq!(encoded(ty, &x, vec![]), want, "type {ty}");
    }
    let not = [(17, [0x7f, 0xff, 0x7f, 0xff]), (18, [0x80; 4]), (19, [0x7c, 0xfc, 0x7c, 0xfc]), (20, [0x80; 4])];
    for (ty, want) in not {
        assert_eq!(encoded(ty, &x, vec![int("saturate", 0)]), want, "type {ty}");
    }
    // 464 lies half way to where 480 would be.
    assert_eq!(encoded(17, &[463.0, 464.0, 465.0], vec![int("saturate", 0)]), [0x7e, 0x7e, 0x7f]);
}

#[test]
fn powers_of_two_are_rounded_as_asked() {
    let mode = |m: &str| AttributeProto { s: Some(m.to_string().into()), ..attr("round_mode", A::String) };
    let x = [0.0, 1e-40, 1.0, 1.25, 1.5, 1.75, 3.3e38, f32::INFINITY, f32::NAN];
    assert_eq!(encoded(24, &x, vec![]), [0, 0, 127, 128, 128, 128, 254, 254, 255]);
    assert_eq!(encoded(24, &x, vec![mode("down")]), [0, 0, 127, 127, 127, 127, 254, 254, 255]);
    let nearest = vec![mode("nearest"), int("saturate", 0)];
    assert_eq!(encoded(24, &x, nearest), [255, 255, 127, 127, 128, 128, 255, 255, 255]);
    let m = M::new(25).input("x", F32, "1").node("Cast", "x", "y", vec![int("to", 24), mode("odd")]).output("y");
    assert!(m.errors()[0].contains("round_mode 'odd' is unknown"));
}

#[test]
fn integers_of_few_bits_keep_their_low_bits() {
    let x = [-9.0, -1.0, 0.0, 7.0, 8.0, 200.0];
    assert_eq!(encoded(22, &x, vec![]), [7, 255, 0, 7, 248, 248], "int4");
    assert_eq!(encoded(21, &x, vec![]), [7, 15, 0, 7, 8, 8], "uint4");
    assert_eq!(encoded(26, &x, vec![]), [255, 255, 0, 255, 0, 0], "int2");
    assert_eq!(encoded(25, &x, vec![]), [3, 3, 0, 3, 0, 0], "uint2");
}

#[test]
fn only_some_operators_take_such_types() {
    let m = M::new(25).input("x", 17, "2 3").node("Transpose", "x", "t", vec![]);
    let m = m.node("Cast", "t", "y", vec![int("to", F32.into())]).output("y");
    let x = Tensor::new(DType::U8, vec![2, 3], vec![0x38, 0, 0xb8, 0x40, 0x7e, 1].into()).expect("bytes");
    close(&m.run(&[x]), &[3, 2], &[1.0, 2.0, 0.0, 448.0, -1.0, 0.001953125]);
    let notes = m.import().notes;
    assert!(notes[0].contains("input 'x' of float8e4m3fn is a tensor of u8"), "{notes:?}");
    let m = M::new(25).input("x", 22, "2").node("Add", "x x", "y", vec![]).output("y");
    assert_eq!(
        m.errors(),
        [
            "node 'y' (Add): operands of int4 are not supported: `Cast` and `DequantizeLinear` make others of them (opset 25)"
        ]
    );
}

#[test]
fn a_pad_of_codes() {
    let m = M::new(25).bytes("x", 17, &[2], &[0x38, 0x40]).i64s("p", &[2], &[1, 1]).bytes("v", 17, &[], &[0x7e]);
    let m = m.node("Pad", "x p v", "q", vec![]).node("Cast", "q", "y", vec![int("to", F32.into())]).output("y");
    close(&m.run(&[]), &[4], &[448.0, 1.0, 2.0, 448.0]);
    let m = M::new(25).bytes("x", 17, &[2], &[0x38, 0x40]).i64s("p", &[2], &[1, 1]).bytes("v", 2, &[], &[1]);
    let m = m.node("Pad", "x p v", "y", vec![]).output("y");
    assert!(m.errors()[0].contains("the constant is u8, the data float8e4m3fn"), "{:?}", m.errors());
}

#[test]
fn floats_of_8_bits_as_quantised_values() {
    let m = M::new(25)
        .input("x", F32, "3")
        .f32s("s", &[], &[0.5])
        .bytes("z", 17, &[], &[0])
        .node("QuantizeLinear", "x s z", "q", vec![])
        .node("DequantizeLinear", "q s z", "y", vec![])
        .output("y");
    close(&m.run(&[Tensor::from_f32(vec![3], &[0.54, -1000.0, 0.0])]), &[3], &[0.5625, -224.0, 0.0]);
    let m = M::new(25).input("x", 17, "3").f32s("s", &[], &[0.5]).bytes("z", 19, &[], &[0]);
    let m = m.node("DequantizeLinear", "x s z", "y", vec![]).output("y");
    assert!(m.errors()[0].contains("a zero point of float8e5m2 for an operand of float8e4m3fn"), "{:?}", m.errors());
    // A scale that is a power of two.
    let m = M::new(25).input("x", 17, "1").bytes("s", 24, &[], &[0x81]);
    let m = m.node("DequantizeLinear", "x s", "y", vec![int("output_dtype", F32.into())]).output("y");
    close(&m.run(&[Tensor::new(DType::U8, vec![1], vec![0x38].into()).expect("a byte")]), &[1], &[4.0]);
}
