//! Positive definite matrices, `[n, n]` of f64 in rows.

/// The sum of products, in an order that depends on the length alone.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a_parts, a_rest) = a.as_chunks::<LANES>();
    let (b_parts, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_parts.iter().zip(b_parts) {
        sums.iter_mut().zip(x.iter().zip(y)).for_each(|(s, (x, y))| *s += x * y);
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f64>()
}

/// The lower triangular L with L·Lᵀ = `a`, whose upper half isn't read; nothing where `a` is not positive definite.
pub fn cholesky(a: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        let (above, row) = l.split_at_mut(i * n);
        for j in 0..i {
            let other = &above[j * n..];
            row[j] = (a[i * n + j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let d = a[i * n + i] - dot(&row[..i], &row[..i]);
        if d.is_nan() || d <= 0.0 {
            return None;
        }
        row[i] = d.sqrt();
    }
    Some(l)
}

/// The inverse of a lower triangular matrix, which is one too.
pub fn lower_inverse(l: &[f64], n: usize) -> Vec<f64> {
    let mut x = vec![0.0; n * n];
    for i in 0..n {
        let (above, row) = x.split_at_mut(i * n);
        let d = l[i * n + i];
        for (j, other) in above.chunks_exact(n).enumerate() {
            let factor = l[i * n + j];
            row[..=j].iter_mut().zip(other).for_each(|(r, o)| *r -= factor * o);
        }
        row[..i].iter_mut().for_each(|r| *r /= d);
        row[i] = 1.0 / d;
    }
    x
}

/// The inverse of a small positive definite matrix; nothing where it is not.
pub fn inverse(a: &[f64], n: usize) -> Option<Vec<f64>> {
    let x = lower_inverse(&cholesky(a, n)?, n);
    let mut out = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..n {
            out[i * n + j] = (i.max(j)..n).map(|k| x[k * n + i] * x[k * n + j]).sum();
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inverse_is_one() {
        for n in [1, 2, 9, 30] {
            let x: Vec<f64> = super::super::tests::noise(n * n, n as u64).into_iter().map(f64::from).collect();
            let at = |i: usize, j: usize| dot(&x[i * n..][..n], &x[j * n..][..n]) + f64::from(u8::from(i == j));
            let a: Vec<f64> = (0..n * n).map(|i| at(i / n, i % n)).collect();
            let b = inverse(&a, n).unwrap();
            for i in 0..n {
                for j in 0..n {
                    let sum: f64 = (0..n).map(|k| a[i * n + k] * b[k * n + j]).sum();
                    assert!((sum - f64::from(u8::from(i == j))).abs() < 1e-9, "{n} {i} {j}: {sum}");
                }
            }
        }
        assert!(inverse(&[1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(inverse(&[f64::NAN], 1).is_none());
    }
}
