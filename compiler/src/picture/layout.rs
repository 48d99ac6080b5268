//! Places the nodes of one group of a graph: ranks by longest path, an order within each rank by barycentres, then
//! positions as near to the neighbours' as room allows. Long edges go through the ranks between as thin nodes, so that no
//! edge runs over a node. One source's long edges share their way.

/// Distance of neighbours in a rank.
const GAP_X: f64 = 18.0;
/// Distance of ranks.
const GAP_Y: f64 = 30.0;
/// Width that an edge takes in a rank it passes.
const LANE: f64 = 10.0;
/// Empty space around everything.
const MARGIN: f64 = 14.0;
/// Sweeps of ordering and of positioning; more hardly change a picture.
const SWEEPS: usize = 12;

/// Where a node may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pin {
    /// Wherever its edges want it.
    Free,
    /// Above all free nodes.
    Top,
    /// Below all free nodes.
    Bottom,
}

/// What is placed.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    /// Where it may be.
    pub pin: Pin,
}

/// A way from one node to another: down through these points.
#[derive(Clone, Debug)]
pub struct Route {
    /// The edge's source.
    pub from: usize,
    /// Its target.
    pub to: usize,
    /// Points, from the source's lower edge to the target's upper one.
    pub points: Vec<(f64, f64)>,
}

/// Where everything is.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Size of the whole.
    pub width: f64,
    /// Size of the whole.
    pub height: f64,
    /// Upper left corner of each item.
    pub at: Vec<(f64, f64)>,
    /// One for each edge, in their order.
    pub routes: Vec<Route>,
}

/// Places `items`. Every edge goes from a lower index to a higher one; a pinned node at the top has no edge into it, one
/// at the bottom none out of it.
pub fn layout(items: &[Item], edges: &[(usize, usize)]) -> Layout {
    if items.is_empty() {
        return Layout { width: 2.0 * MARGIN, height: 2.0 * MARGIN, ..Layout::default() };
    }
    let rank = ranks(items, edges);
    let mut s = Sketch::new(items, edges, &rank);
    s.sort();
    s.spread();
    s.pack();
    s.finish(items, edges, &rank)
}

fn ranks(items: &[Item], edges: &[(usize, usize)]) -> Vec<usize> {
    let n = items.len();
    let (mut preds, mut succs) = (vec![Vec::new(); n], vec![Vec::new(); n]);
    for &(a, b) in edges {
        preds[b].push(a);
        succs[a].push(b);
    }
    // The top rank is for pinned nodes only.
    let mut rank = vec![0; n];
    for v in 0..n {
        let least = usize::from(items[v].pin != Pin::Top);
        rank[v] = preds[v].iter().map(|&p| rank[p] + 1).max().unwrap_or(0).max(least);
    }
    let free = (0..n).filter(|&v| items[v].pin == Pin::Free);
    let last = free.map(|v| rank[v]).max().unwrap_or(0);
    for v in (0..n).rev() {
        match items[v].pin {
            Pin::Bottom => rank[v] = last + 1,
            // A source is where it is used.
            Pin::Free if preds[v].is_empty() => {
                let user = succs[v].iter().filter(|&&u| items[u].pin == Pin::Free).map(|&u| rank[u]).min();
                rank[v] = user.map_or(rank[v], |r| r.saturating_sub(1).max(1));
            }
            _ => {}
        }
    }
    rank
}

/// The graph with thin nodes for the edges' ways.
struct Sketch {
    width: Vec<f64>,
    rank: Vec<usize>,
    /// Neighbours one rank up, and one rank down.
    up: Vec<Vec<usize>>,
    down: Vec<Vec<usize>>,
    /// The nodes of each rank from left to right.
    rows: Vec<Vec<usize>>,
    /// Centres.
    x: Vec<f64>,
    /// The thin nodes below each item, rank by rank.
    ways: Vec<Vec<usize>>,
    items: usize,
}

impl Sketch {
    fn new(items: &[Item], edges: &[(usize, usize)], rank: &[usize]) -> Sketch {
        let n = items.len();
        let mut s = Sketch {
            width: items.iter().map(|i| i.width).collect(),
            rank: rank.to_vec(),
            up: vec![Vec::new(); n],
            down: vec![Vec::new(); n],
            rows: Vec::new(),
            x: Vec::new(),
            ways: vec![Vec::new(); n],
            items: n,
        };
        for &(a, b) in edges {
            let mut from = a;
            for r in rank[a] + 1..rank[b] {
                let i = r - rank[a] - 1;
                if s.ways[a].len() == i {
                    let thin = s.width.len();
                    s.width.push(LANE);
                    s.rank.push(r);
                    s.up.push(Vec::new());
                    s.down.push(Vec::new());
                    s.ways[a].push(thin);
                    s.link(from, thin);
                }
                from = s.ways[a][i];
            }
            s.link(from, b);
        }
        s.rows = vec![Vec::new(); rank.iter().max().map_or(0, |r| r + 1)];
        for v in 0..s.width.len() {
            s.rows[s.rank[v]].push(v);
        }
        s
    }

    fn link(&mut self, a: usize, b: usize) {
        self.down[a].push(b);
        self.up[b].push(a);
    }

    /// Orders each rank by the mean position of the neighbours, downwards and upwards in turns; the best order stays.
    fn sort(&mut self) {
        let mut place = vec![0.0; self.width.len()];
        let number = |rows: &[Vec<usize>], place: &mut [f64]| {
            rows.iter().for_each(|r| r.iter().enumerate().for_each(|(i, &v)| place[v] = i as f64));
        };
        number(&self.rows, &mut place);
        let mut best = (self.crossings(&place), self.rows.clone());
        for sweep in 0..SWEEPS {
            let downwards = sweep % 2 == 0;
            let n = self.rows.len();
            for i in 0..n {
                let r = if downwards { i } else { n - 1 - i };
                let near = if downwards { &self.up } else { &self.down };
                let mut row: Vec<(f64, usize)> = self.rows[r]
                    .iter()
                    .map(|&v| (mean(near[v].iter().map(|&u| place[u])).unwrap_or(place[v]), v))
                    .collect();
                // Stable: equals keep their order.
                row.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.rows[r] = row.into_iter().map(|(_, v)| v).collect();
                self.rows[r].iter().enumerate().for_each(|(i, &v)| place[v] = i as f64);
            }
            let crossings = self.crossings(&place);
            if crossings < best.0 {
                best = (crossings, self.rows.clone());
            }
        }
        self.rows = best.1;
    }

    /// Number of edges that cross, up to a bound on the work.
    fn crossings(&self, place: &[f64]) -> usize {
        let mut sum = 0;
        for row in &self.rows {
            let ends: Vec<(f64, f64)> =
                row.iter().flat_map(|&v| self.down[v].iter().map(move |&u| (place[v], place[u]))).take(500).collect();
            for (i, a) in ends.iter().enumerate() {
                sum += ends[..i].iter().filter(|b| (a.0 - b.0) * (a.1 - b.1) < 0.0).count();
            }
        }
        sum
    }

    /// Centres: each rank in turn as near to its neighbours as the distances in it allow.
    fn spread(&mut self) {
        self.x = vec![0.0; self.width.len()];
        for row in self.rows.clone() {
            let wanted = vec![0.0; row.len()];
            self.place_row(&row, &wanted, &vec![1.0; row.len()]);
        }
        for sweep in 0..2 * SWEEPS {
            let n = self.rows.len();
            for i in 0..n {
                let r = if sweep % 2 == 0 { i } else { n - 1 - i };
                let row = self.rows[r].clone();
                // The last sweeps balance both sides.
                let both = sweep + SWEEPS >= 2 * SWEEPS;
                let wanted: Vec<f64> = row.iter().map(|&v| self.wanted(v, both, sweep % 2 == 0)).collect();
                // Ways are to be straight.
                let weight: Vec<f64> = row.iter().map(|&v| if v >= self.items { 4.0 } else { 1.0 }).collect();
                self.place_row(&row, &wanted, &weight);
            }
        }
    }

    /// Where a node is best placed: at the mean of its neighbours, of which a way's own parts and a chain's only ones
    /// count most.
    fn wanted(&self, v: usize, both: bool, downwards: bool) -> f64 {
        let (up, down) = (self.up[v].iter(), self.down[v].iter());
        let thin = |v: usize| v >= self.items;
        let alone = |u: usize| {
            let (a, b) = if self.rank[u] < self.rank[v] { (u, v) } else { (v, u) };
            self.down[a].len() == 1 && self.up[b].len() == 1
        };
        let pull = |&u: &usize| match (thin(u) && thin(v), alone(u)) {
            (true, _) => (self.x[u], 6.0),
            (_, true) => (self.x[u], 3.0),
            _ => (self.x[u], 1.0),
        };
        let near: Vec<(f64, f64)> = match (both, downwards) {
            (false, true) if !self.up[v].is_empty() => up.map(pull).collect(),
            (false, false) if !self.down[v].is_empty() => down.map(pull).collect(),
            _ => up.chain(down).map(pull).collect(),
        };
        let (sum, weight) = near.iter().fold((0.0, 0.0), |(s, w), n| (s + n.0 * n.1, w + n.1));
        if weight > 0.0 { sum / weight } else { self.x[v] }
    }

    /// The positions that minimise the weighted squares of the distances from `wanted`, in the row's order and with room
    /// between: isotonic regression by pooling neighbours that are in the wrong order.
    fn place_row(&mut self, row: &[usize], wanted: &[f64], weight: &[f64]) {
        let mut offset = 0.0;
        let mut offsets = Vec::with_capacity(row.len());
        for (i, &v) in row.iter().enumerate() {
            if i > 0 {
                offset += (self.width[row[i - 1]] + self.width[v]) / 2.0 + GAP_X;
            }
            offsets.push(offset);
        }
        // Pools of sum, weight, and number of members.
        let mut pools: Vec<(f64, f64, usize)> = Vec::new();
        for i in 0..row.len() {
            pools.push(((wanted[i] - offsets[i]) * weight[i], weight[i], 1));
            while let [.., a, b] = pools[..] {
                if a.0 / a.1 <= b.0 / b.1 {
                    break;
                }
                pools.truncate(pools.len() - 2);
                pools.push((a.0 + b.0, a.1 + b.1, a.2 + b.2));
            }
        }
        let values = pools.iter().flat_map(|p| std::iter::repeat_n(p.0 / p.1, p.2));
        for ((&v, y), o) in row.iter().zip(values).zip(offsets) {
            self.x[v] = y + o;
        }
    }

    /// Moves parts that no edge joins next to each other: nothing else holds them together.
    fn pack(&mut self) {
        let n = self.width.len();
        let mut part = vec![usize::MAX; n];
        let mut parts = 0;
        for start in 0..n {
            if part[start] != usize::MAX {
                continue;
            }
            let mut todo = vec![start];
            while let Some(v) = todo.pop() {
                if part[v] == usize::MAX {
                    part[v] = parts;
                    todo.extend(self.up[v].iter().chain(&self.down[v]));
                }
            }
            parts += 1;
        }
        let mut order: Vec<(f64, usize)> =
            (0..parts).map(|p| (mean((0..n).filter(|&v| part[v] == p).map(|v| self.x[v])).unwrap_or(0.0), p)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        // How far right each rank is taken.
        let mut taken = vec![f64::NEG_INFINITY; self.rows.len()];
        for (_, p) in order {
            let members: Vec<usize> = (0..n).filter(|&v| part[v] == p).collect();
            let edge = |v: usize, side: f64| self.x[v] + side * self.width[v] / 2.0;
            let room = members.iter().map(|&v| edge(v, -1.0) - taken[self.rank[v]]).fold(f64::INFINITY, f64::min);
            let left = members.iter().map(|&v| edge(v, -1.0)).fold(f64::INFINITY, f64::min);
            let shift = if room.is_finite() { GAP_X - room } else { -left };
            for &v in &members {
                self.x[v] += shift;
            }
            for &v in &members {
                let right = self.x[v] + self.width[v] / 2.0;
                taken[self.rank[v]] = taken[self.rank[v]].max(right);
            }
        }
    }

    fn finish(mut self, items: &[Item], edges: &[(usize, usize)], rank: &[usize]) -> Layout {
        let left = (0..self.x.len()).map(|v| self.x[v] - self.width[v] / 2.0).fold(f64::INFINITY, f64::min);
        self.x.iter_mut().for_each(|x| *x = (*x - left + MARGIN).round());
        let right = (0..self.x.len()).map(|v| self.x[v] + self.width[v] / 2.0).fold(0.0, f64::max);
        // Upper and lower edge of each rank. Pinned rows are flat, and lie on the border.
        let mut rows = Vec::with_capacity(self.rows.len());
        let mut y = 0.0;
        for row in &self.rows {
            let height = row.iter().filter_map(|&v| items.get(v)).map(|i| i.height).fold(0.0, f64::max);
            rows.push((y, y + height));
            y += height + if row.is_empty() { MARGIN } else { GAP_Y };
        }
        let bottom = items.iter().any(|i| i.pin == Pin::Bottom);
        let last = rows.last().map_or(0.0, |r| r.1);
        let centre = |v: usize| (rows[rank[v]].0 + rows[rank[v]].1) / 2.0;
        let routes = edges.iter().map(|&(a, b)| {
            let mut points = vec![(self.x[a], centre(a) + items[a].height / 2.0)];
            for &w in &self.ways[a][..rank[b] - rank[a] - 1] {
                let (top, low) = rows[self.rank[w]];
                points.extend([(self.x[w], top), (self.x[w], low)]);
            }
            points.push((self.x[b], centre(b) - items[b].height / 2.0));
            Route { from: a, to: b, points }
        });
        Layout {
            width: right + MARGIN,
            height: last + if bottom { 0.0 } else { MARGIN },
            routes: routes.collect(),
            at: (0..items.len())
                .map(|v| (self.x[v] - items[v].width / 2.0, centre(v) - items[v].height / 2.0))
                .collect(),
        }
    }
}

fn mean(xs: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = xs.fold((0.0, 0usize), |(s, n), x| (s + x, n + 1));
    (n > 0).then(|| sum / n as f64)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What every layout keeps: nodes apart, edges downwards, no edge over a node, everything inside.
    pub(crate) fn check(items: &[Item], edges: &[(usize, usize)], l: &Layout) {
        let boxes: Vec<_> =
            items.iter().zip(&l.at).map(|(i, at)| (at.0, at.1, at.0 + i.width, at.1 + i.height)).collect();
        for (i, a) in boxes.iter().enumerate() {
            assert!(a.0 >= 0.0 && a.1 >= 0.0 && a.2 <= l.width && a.3 <= l.height, "{i} lies outside: {a:?}");
            for (j, b) in boxes[..i].iter().enumerate() {
                let apart = a.2 <= b.0 || b.2 <= a.0 || a.3 <= b.1 || b.3 <= a.1;
                assert!(apart, "{i} {a:?} and {j} {b:?} overlap");
            }
        }
        assert_eq!(l.routes.len(), edges.len());
        for (r, e) in l.routes.iter().zip(edges) {
            assert_eq!((r.from, r.to), *e);
            assert!(boxes[r.from].3 < boxes[r.to].1, "{e:?} doesn't go down");
            assert!(r.points.windows(2).all(|p| p[0].1 <= p[1].1), "{e:?} goes up: {:?}", r.points);
            // Where an edge passes ranks it is vertical; there it must miss every node.
            for p in r.points.windows(2).filter(|p| p[0].0 == p[1].0) {
                for (i, b) in boxes.iter().enumerate().filter(|(i, _)| *i != r.from && *i != r.to) {
                    let hit = p[0].0 > b.0 && p[0].0 < b.2 && p[0].1 < b.3 && p[1].1 > b.1;
                    assert!(!hit, "{e:?} runs over {i}: {p:?} {b:?}");
                }
            }
        }
    }

    fn boxes(n: usize) -> Vec<Item> {
        (0..n).map(|i| Item { width: 40.0 + (i * 37 % 90) as f64, height: 36.0, pin: Pin::Free }).collect()
    }

    #[test]
    fn simple_graphs() {
        for (n, edges) in [
            (1, vec![]),
            (4, vec![]),
            (2, vec![(0, 1)]),
            (4, vec![(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)]),
            (6, vec![(0, 1), (1, 2), (2, 3), (3, 4), (0, 4), (0, 5), (0, 5)]),
        ] {
            check(&boxes(n), &edges, &layout(&boxes(n), &edges));
        }
        assert!(layout(&[], &[]).at.is_empty());
    }

    #[test]
    fn random_graphs_keep_the_invariants() {
        let mut state = 7u64;
        let mut next = move |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        for n in [3, 10, 60, 300] {
            let mut items = boxes(n);
            items[0] = Item { width: 8.0, height: 0.0, pin: Pin::Top };
            items[n - 1] = Item { width: 8.0, height: 0.0, pin: Pin::Bottom };
            let mut edges: Vec<_> = (2..n).map(|v| (v - 1 - next(v.min(6)).min(v - 1), v)).collect();
            edges.extend((0..n / 3).map(|_| (next(n - 2), n - 1)).filter(|e| e.0 < e.1));
            let l = layout(&items, &edges);
            check(&items, &edges, &l);
            assert_eq!((l.at[0].1, l.at[n - 1].1), (0.0, l.height));
        }
    }

    #[test]
    fn parts_that_nothing_joins_are_next_to_each_other() {
        // Two chains, and between their sources' places in order a wide fan.
        let mut edges: Vec<_> = (0..8).map(|i| (i, i + 2)).collect();
        edges.extend((10..20).map(|i| (0, i)));
        let items = boxes(20);
        let l = layout(&items, &edges);
        check(&items, &edges, &l);
        let row: f64 = items[10..].iter().map(|i| i.width + GAP_X).sum();
        assert!(l.width < row + 400.0, "{}", l.width);
    }

    #[test]
    fn a_chain_is_straight() {
        let edges: Vec<_> = (1..9).map(|i| (i - 1, i)).collect();
        let l = layout(&boxes(9), &edges);
        assert!(l.routes.iter().all(|r| (r.points[0].0 - r.points[1].0).abs() <= 1.0));
    }
}
