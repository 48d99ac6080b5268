//! What the fusion passes share: the walk over the graph, and questions about values.

use bertc_ir::{BinaryOp, DType, Diag, Dim, Graph, Loc, Op, Scalar, Tensor, ValueId};

use crate::build;
use crate::pass::{PassContext, Remark, RemarkKind};

/// What a rule says of a value: the value to put in its place; nothing, where it is no candidate; or why a candidate
/// can't be rewritten.
pub type Rewrite = Result<Option<ValueId>, String>;

/// Vectors longer than this are not made out of a scalar.
const MAX_SPLAT: usize = 1 << 16;

/// [`rewrite_as`] with the remark that the operation became another one.
pub fn rewrite(
    g: &mut Graph,
    ctx: &mut PassContext,
    pass: &'static str,
    rule: impl FnMut(&mut Graph, ValueId) -> Rewrite,
) -> Result<bool, Diag> {
    rewrite_as(g, ctx, pass, "became", rule)
}

/// Offers every live value to `rule`, operands before users; tells whether anything changed. What was rewritten becomes
/// a remark, `done` with the new operation's name, and so do the reasons of rejections.
pub fn rewrite_as(
    g: &mut Graph,
    ctx: &mut PassContext,
    pass: &'static str,
    done: &str,
    mut rule: impl FnMut(&mut Graph, ValueId) -> Rewrite,
) -> Result<bool, Diag> {
    // Dead users would look like real ones.
    let mut changed = g.remove_dead() > 0;
    for v in g.topo() {
        if !g.contains(v) {
            continue;
        }
        let before = g.len();
        match rule(g, v) {
            Ok(None) => {}
            Ok(Some(new)) => {
                let loc = g.node(v).loc.clone();
                let what = format!("{done} '{}'", made(g, v, new));
                ctx.remark(about(g, pass, v, RemarkKind::Applied, &what));
                g.replace(v, new).map_err(|d| d.at(loc))?;
                simplify_users(g, new)?;
                g.remove_dead();
                changed = true;
                continue;
            }
            Err(reason) => remark(g, ctx, pass, v, &reason),
        }
        if g.len() != before {
            // What the rule built before it gave up.
            g.remove_dead();
        }
    }
    Ok(changed)
}

/// The name of the operation that `new` brings in place of `old`, behind the reshapes and transposes after it.
fn made(g: &Graph, old: ValueId, mut new: ValueId) -> &'static str {
    while let Op::Reshape { .. } | Op::Transpose { .. } = g.op(new) {
        let below = g.operands(new)[0];
        if g.operands(old).contains(&below) {
            break;
        }
        new = below;
    }
    g.op(new).name()
}

fn about(g: &Graph, pass: &'static str, v: ValueId, kind: RemarkKind, reason: &str) -> Remark {
    let node = g.node(v);
    Remark { pass, kind, op: node.op.name(), value: v, loc: node.loc.clone(), reason: reason.to_string() }
}

/// Notes why `v` was not rewritten; once, however often the pass runs.
pub fn remark(g: &Graph, ctx: &mut PassContext, pass: &'static str, v: ValueId, reason: &str) {
    ctx.remark(about(g, pass, v, RemarkKind::Missed, reason));
}

/// Notes what became of `v`.
pub fn applied(g: &Graph, ctx: &mut PassContext, pass: &'static str, v: ValueId, what: &str) {
    ctx.remark(about(g, pass, v, RemarkKind::Applied, what));
}

/// Reshapes and transposes of a new reshape or transpose merge with it, or cancel.
fn simplify_users(g: &mut Graph, v: ValueId) -> Result<(), Diag> {
    let mut work = vec![v];
    while let Some(v) = work.pop() {
        if !matches!(g.op(v), Op::Reshape { .. } | Op::Transpose { .. }) {
            continue;
        }
        for u in g.users(v) {
            // What was replaced stays a user until the dead are removed; two of them could replace each other for ever.
            if g.users(u).is_empty() && !g.is_output(u) {
                continue;
            }
            let node = g.node(u).clone();
            let new = match node.op {
                Op::Reshape { shape } => reshape(g, v, shape, &node.loc),
                Op::Transpose { perm } => transpose(g, v, &perm, &node.loc),
                _ => None,
            };
            if let Some(new) = new
                && g.op(new) != g.op(u)
            {
                g.replace(u, new)?;
                work.push(new);
            }
        }
    }
    Ok(())
}

/// `x` under another shape; reshapes of reshapes are one.
pub fn reshape(g: &mut Graph, mut x: ValueId, shape: Vec<Dim>, loc: &Loc) -> Option<ValueId> {
    while let Op::Reshape { .. } = g.op(x) {
        x = g.operands(x)[0];
    }
    build::reshape(g, x, shape, loc)
}

/// `x` with its dims permuted; transposes of transposes are one, and one that moves dims of size 1 only is a reshape.
pub fn transpose(g: &mut Graph, x: ValueId, perm: &[usize], loc: &Loc) -> Option<ValueId> {
    let (x, perm) = match g.op(x) {
        Op::Transpose { perm: first } => (g.operands(x)[0], perm.iter().map(|&p| first[p]).collect()),
        _ => (x, perm.to_vec()),
    };
    let from = &g.ty(x).shape;
    if perm.iter().filter(|&&p| !build::is_one(&from[p])).is_sorted() {
        let shape = perm.iter().map(|&p| from[p].clone()).collect();
        return reshape(g, x, shape, loc);
    }
    build::transpose(g, x, perm, loc)
}

/// The op that uses `v`, if it is one op, uses it once, and `v` is no output.
pub fn single_user(g: &Graph, v: ValueId) -> Option<ValueId> {
    let users = g.users(v);
    let [u] = users[..] else { return None };
    (!g.is_output(v) && g.operands(u).iter().filter(|&&o| o == v).count() == 1).then_some(u)
}

/// Whether `v` is used by nothing but the ops in `inside`, and is no output.
pub fn used_only_by(g: &Graph, v: ValueId, inside: &[ValueId]) -> bool {
    !g.is_output(v) && g.users(v).iter().all(|u| inside.contains(u))
}

/// The value that all elements of a float constant have, under reshapes and broadcasts.
pub fn scalar(g: &Graph, mut v: ValueId) -> Option<f64> {
    while let Op::Broadcast { .. } | Op::Reshape { .. } = g.op(v) {
        v = g.operands(v)[0];
    }
    let t = g.as_const(v).filter(|t| t.dtype().is_float() && !t.is_empty() && t.len() <= MAX_SPLAT)?;
    let size = t.dtype().size();
    t.bytes().chunks_exact(size).all(|c| *c == t.bytes()[..size]).then(|| t.get(0).to_f64())
}

/// Operands of a binary op.
pub fn binary(g: &Graph, v: ValueId, op: BinaryOp) -> Option<(ValueId, ValueId)> {
    (*g.op(v) == Op::Binary(op)).then(|| (g.operands(v)[0], g.operands(v)[1]))
}

/// Operands of a commutative op, in both orders.
pub fn either(g: &Graph, v: ValueId, op: BinaryOp) -> impl Iterator<Item = (ValueId, ValueId)> + use<> {
    binary(g, v, op).into_iter().flat_map(|(a, b)| [(a, b), (b, a)])
}

/// The operand and the constant, where `v` is a product with one number or a quotient by one.
pub fn scaled(g: &Graph, v: ValueId) -> Option<(ValueId, f64)> {
    let of_type = |x: ValueId| g.ty(x) == g.ty(v);
    if let Some((a, b)) = binary(g, v, BinaryOp::Div) {
        return scalar(g, b).filter(|c| *c != 0.0 && of_type(a)).map(|c| (a, 1.0 / c));
    }
    either(g, v, BinaryOp::Mul).find_map(|(a, b)| scalar(g, b).filter(|_| of_type(a)).map(|c| (a, c)))
}

/// A vector of `n` elements that broadcasts to the same as `v` where the last dim is `n`; `None` if `v` varies along
/// another dim.
pub fn vector(g: &mut Graph, v: ValueId, n: &Dim) -> Option<ValueId> {
    let (dtype, loc) = (g.ty(v).dtype, g.node(v).loc.clone());
    let mut x = v;
    while let Op::Broadcast { .. } = g.op(x) {
        x = g.operands(x)[0];
    }
    let shape = &g.ty(x).shape;
    match shape.split_last() {
        Some((last, rest)) if last == n && rest.iter().all(build::is_one) => reshape(g, x, vec![n.clone()], &loc),
        _ => splat(g, dtype, n, scalar(g, x)?, &loc),
    }
}

/// A constant vector of `n` equal elements.
pub fn splat(g: &mut Graph, dtype: DType, n: &Dim, value: f64, loc: &Loc) -> Option<ValueId> {
    let n = usize::try_from(n.as_const()?).ok().filter(|&n| n <= MAX_SPLAT)?;
    let elements = std::iter::repeat_n(Scalar::Float(value), n);
    g.add_const(Tensor::from_scalars(dtype, vec![n], elements), loc).ok()
}
