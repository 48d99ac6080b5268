//! Loads a compiled model from a shared library and runs it. The only module of this crate that calls foreign code.
//!
//! Everything is driven by the descriptor that the library exports, as a tool would that has never seen the model.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use bertc_ir::{DType, Diag, Tensor};
use bertc_rt::{Model, Options, Parallel, Task, ThreadPool};
use libloading::Library;
use memmap2::MmapMut;

/// A symbolic dim of a compiled model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SymbolInfo {
    /// Name.
    pub name: String,
    /// Smallest value.
    pub min: i64,
    /// Largest value.
    pub max: i64,
}

/// One extent of an input or output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// Always this.
    Const(i64),
    /// The value of a symbol.
    Symbol(usize),
    /// Computed from the symbols.
    Computed,
}

/// An input or output of a compiled model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortInfo {
    /// The ONNX name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first.
    pub dims: Vec<Extent>,
}

/// What a compiled model says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// Symbol prefix.
    pub name: String,
    /// Hash of model and flags, in hex.
    pub hash: String,
    /// Symbolic dims, in the order of `dims`.
    pub symbols: Vec<SymbolInfo>,
    /// Inputs in order.
    pub inputs: Vec<PortInfo>,
    /// Outputs in order.
    pub outputs: Vec<PortInfo>,
}

impl Descriptor {
    /// Text of an extent: a number, a symbol's name, or `?`.
    pub fn extent(&self, e: Extent) -> String {
        match e {
            Extent::Const(v) => v.to_string(),
            Extent::Symbol(s) => self.symbols[s].name.clone(),
            Extent::Computed => "?".into(),
        }
    }

    /// Text of a shape: `[batch, seq, 384]`.
    pub fn shape(&self, p: &PortInfo) -> String {
        let dims: Vec<_> = p.dims.iter().map(|&d| self.extent(d)).collect();
        format!("[{}]", dims.join(", "))
    }

    /// The concrete shape of an input; `None` where an extent is computed or doesn't fit `usize`.
    pub fn input_shape(&self, p: &PortInfo, dims: &[i64]) -> Option<Vec<usize>> {
        let value = |e: &Extent| match *e {
            Extent::Const(v) => Some(v),
            Extent::Symbol(s) => dims.get(s).copied(),
            Extent::Computed => None,
        };
        p.dims.iter().map(|e| usize::try_from(value(e)?).ok()).collect()
    }
}

/// The element type of a code in the descriptor.
pub fn dtype_of(code: i32) -> Option<DType> {
    // `DType::ALL` has the order of the codes; the tests compare them one by one.
    usize::try_from(code).ok().and_then(|c| DType::ALL.get(c).copied())
}

/// A model in this process.
pub struct LoadedModel {
    model: NonNull<Model>,
    descriptor: Descriptor,
    variants: Vec<String>,
    /// There where there are several.
    select: Option<SelectVariant>,
    // Last, so that nothing above outlives the code.
    _library: Library,
}

/// The type of `NAME_select_variant`.
type SelectVariant = unsafe extern "C" fn(u32) -> i32;

/// A run that the model refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the model returned error {code}: {text}")]
pub struct RunError {
    /// One of [`bertc_rt::abi::status`].
    pub code: i32,
    /// What the model's `strerror` says.
    pub text: String,
}

impl LoadedModel {
    /// Loads `path`, a shared library that bertc wrote, whose symbols start with `prefix`.
    ///
    /// Loading runs the library's code: it must come from a source that is trusted.
    ///
    /// # Errors
    /// No such library or symbol, or a descriptor of another ABI version or with unknown types.
    pub fn open(path: &Path, prefix: &str) -> Result<Self, Diag> {
        let fail = |e: &dyn std::fmt::Display| Diag::new(format!("can't load '{}': {e}", path.display()));
        // SAFETY: initialisers of the library run; the caller trusts it. A library of bertc's has none.
        let library = unsafe { Library::new(path) }.map_err(|e| fail(&e))?;
        let symbol = format!("{prefix}_model\0");
        // SAFETY: the symbol is data; only its address is taken here.
        let model = unsafe { library.get::<*mut Model>(symbol.as_bytes()).map(|s| *s) }.map_err(|e| fail(&e))?;
        let model = NonNull::new(model).ok_or_else(|| fail(&format!("'{prefix}_model' has no address")))?;
        // SAFETY: every version of the descriptor starts with these two fields, and the symbol is 8-aligned data.
        let (version, size) = unsafe { ((*model.as_ptr()).abi_version, (*model.as_ptr()).struct_size) };
        if version != bertc_rt::ABI_VERSION || (size as usize) < size_of::<Model>() {
            return Err(fail(&format!("its ABI version is {version}, expected {}", bertc_rt::ABI_VERSION)));
        }
        // SAFETY: version and size say that the descriptor is complete.
        let descriptor = unsafe { describe(model.as_ref()) }.map_err(|m| fail(&m))?;
        // SAFETY: the symbols have these types wherever they are.
        let (variants, select) = unsafe { variants(&library, prefix) };
        Ok(LoadedModel { model, descriptor, variants, select, _library: library })
    }

    /// The CPUs that there is code for, the least first; none of an object that has code for one alone.
    pub fn variants(&self) -> &[String] {
        &self.variants
    }

    /// Makes runs of this process that begin later those of the variant at a position of [`LoadedModel::variants`]. The
    /// size of the workspace is that variant's, too: sessions that were there before may be too small.
    ///
    /// # Errors
    /// There is no such variant, or the CPU lacks its instructions.
    pub fn select_variant(&self, variant: usize) -> Result<(), RunError> {
        let number = u32::try_from(variant).unwrap_or(u32::MAX);
        // SAFETY: the function takes any number.
        let code = self.select.map_or(bertc_rt::abi::status::INDEX_OUT_OF_RANGE, |f| unsafe { f(number) });
        if code == bertc_rt::abi::status::OK { Ok(()) } else { Err(self.error(code)) }
    }

    /// What the model says about itself.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn model(&self) -> &Model {
        // SAFETY: the library stays loaded as long as `self`.
        unsafe { self.model.as_ref() }
    }

    /// Bytes of workspace for dims and workers; 0: dims out of range. `dims` has one value a symbol.
    pub fn workspace_size(&self, dims: &[i64], workers: u32) -> usize {
        assert_eq!(dims.len(), self.descriptor.symbols.len(), "one dim a symbol");
        // SAFETY: the function reads one dim a symbol.
        unsafe { (self.model().workspace_size)(dims.as_ptr(), workers) }
    }

    /// Shape of an output for dims, one value a symbol.
    ///
    /// # Errors
    /// Dims out of range.
    pub fn output_shape(&self, dims: &[i64], output: usize) -> Result<Vec<usize>, RunError> {
        assert_eq!(dims.len(), self.descriptor.symbols.len(), "one dim a symbol");
        let mut shape = vec![0i64; self.descriptor.outputs[output].dims.len()];
        // SAFETY: the function reads one dim a symbol, and writes one extent a dim of the output.
        let code = unsafe { (self.model().output_shape)(dims.as_ptr(), output as u32, shape.as_mut_ptr()) };
        match shape.iter().map(|&d| usize::try_from(d)).collect() {
            Ok(shape) if code == bertc_rt::abi::status::OK => Ok(shape),
            _ => Err(self.error(code)),
        }
    }

    fn error(&self, code: i32) -> RunError {
        // SAFETY: the text is a constant of the library.
        RunError { code, text: unsafe { text((self.model().strerror)(code)) } }
    }

    /// Copies inputs and allocates outputs and workspace for runs with these inputs.
    ///
    /// # Errors
    /// Inputs or dims that don't fit the descriptor, or no memory.
    pub fn session<'a>(
        &'a self,
        inputs: &[Tensor],
        dims: &[i64],
        pool: Option<&'a ThreadPool>,
    ) -> Result<Session<'a>, Diag> {
        self.session_in(inputs, dims, pool, Pages::Any)
    }

    /// [`LoadedModel::session`] with the inputs in pages of a kind.
    ///
    /// # Errors
    /// As [`LoadedModel::session`].
    pub fn session_in<'a>(
        &'a self,
        inputs: &[Tensor],
        dims: &[i64],
        pool: Option<&'a ThreadPool>,
        pages: Pages,
    ) -> Result<Session<'a>, Diag> {
        let d = &self.descriptor;
        if dims.len() != d.symbols.len() || inputs.len() != d.inputs.len() {
            return Err(Diag::new(format!("expected {} dims and {} inputs", d.symbols.len(), d.inputs.len())));
        }
        for (t, p) in inputs.iter().zip(&d.inputs) {
            if t.dtype() != p.dtype || d.input_shape(p, dims).as_deref() != Some(t.shape()) {
                return Err(Diag::new(format!(
                    "input '{}' is {} {:?}, expected {} {}",
                    p.name,
                    t.dtype(),
                    t.shape(),
                    p.dtype,
                    d.shape(p)
                )));
            }
        }
        let workers = pool.map_or(1, |p| p.parallel().max_workers);
        let bytes = self.workspace_size(dims, workers);
        if bytes == 0 {
            let dims: Vec<_> = d.symbols.iter().zip(dims).map(|(s, v)| format!("{} = {v}", s.name)).collect();
            return Err(Diag::new(format!("dims out of range: {}", dims.join(", "))));
        }
        let inputs = inputs.iter().map(|t| AlignedBuf::from_bytes(t.bytes(), pages)).collect::<Result<_, _>>()?;
        let mut outputs = Vec::new();
        for (i, p) in d.outputs.iter().enumerate() {
            let shape = self.output_shape(dims, i).map_err(|e| Diag::new(e.to_string()))?;
            let bytes = shape.iter().try_fold(p.dtype.size(), |a, &b| a.checked_mul(b));
            let bytes = bytes.ok_or_else(|| Diag::new(format!("output '{}' is too large", p.name)))?;
            outputs.push((shape, AlignedBuf::zeroed(bytes)?));
        }
        let workspace = AlignedBuf::zeroed(bytes)?;
        Ok(Session { loaded: self, pool, dims: dims.to_vec(), inputs, outputs, workspace })
    }
}

/// Buffers for repeated runs.
pub struct Session<'a> {
    loaded: &'a LoadedModel,
    pool: Option<&'a ThreadPool>,
    dims: Vec<i64>,
    inputs: Vec<AlignedBuf>,
    outputs: Vec<(Vec<usize>, AlignedBuf)>,
    workspace: AlignedBuf,
}

impl Session<'_> {
    /// Bytes of workspace.
    pub fn workspace_bytes(&self) -> usize {
        self.workspace.len
    }

    /// Runs the model once.
    ///
    /// # Errors
    /// What the model refused, such as a token id that is out of range.
    pub fn run(&mut self) -> Result<(), RunError> {
        let parallel = self.pool.map_or(std::ptr::null(), |p| std::ptr::from_ref(p.parallel()));
        self.call(parallel)
    }

    /// [`Session::run`] on another pool than that of the session, of no more workers; None: serially.
    ///
    /// # Errors
    /// As [`Session::run`]; with more workers the workspace is too small, unless the model needs no memory for each.
    pub fn run_on(&mut self, pool: Option<&ThreadPool>) -> Result<(), RunError> {
        let parallel = pool.map_or(std::ptr::null(), |p| std::ptr::from_ref(p.parallel()));
        self.call(parallel)
    }

    /// Runs the model once and times its calls of `parallel_for`: one a step, in order, in a model that was compiled
    /// with `profile`. At most as many as `spans` has room for are kept; what it held goes.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_timed(&mut self, spans: &mut Vec<Span>) -> Result<(), RunError> {
        spans.clear();
        let inner = self.pool.map(ThreadPool::parallel);
        let mut recorder = Recorder { inner, begin: Instant::now(), spans };
        let parallel = Parallel {
            ctx: std::ptr::from_mut(&mut recorder).cast(),
            max_workers: inner.map_or(1, |p| p.max_workers),
            reserved: 0,
            parallel_for: Some(record),
        };
        self.call(&raw const parallel)
    }

    /// `parallel` is null or a struct that lives. The model itself refuses more workers than the workspace is for.
    fn call(&mut self, parallel: *const Parallel) -> Result<(), RunError> {
        let inputs: Vec<*const c_void> = self.inputs.iter().map(|b| b.at.as_ptr().cast_const().cast()).collect();
        let outputs: Vec<*mut c_void> = self.outputs.iter().map(|(_, b)| b.at.as_ptr().cast()).collect();
        let mut options = Options { size: size_of::<Options>() as u32, flags: 0, cpu_features: 0 };
        options.cpu_features = bertc_rt::bertc_cpu_features();
        // SAFETY: `LoadedModel::session` checked that inputs, outputs and workspace have the sizes that the model
        // derives from the dims and the workers; all are 64-aligned; `parallel` outlives the call.
        let code = unsafe {
            (self.loaded.model().run)(
                inputs.as_ptr(),
                self.dims.as_ptr(),
                outputs.as_ptr(),
                self.workspace.at.as_ptr().cast(),
                self.workspace.len,
                parallel,
                &raw const options,
            )
        };
        if code == bertc_rt::abi::status::OK { Ok(()) } else { Err(self.loaded.error(code)) }
    }

    /// Copies of the outputs of the last run, in order.
    pub fn outputs(&self) -> Vec<Tensor> {
        let ports = &self.loaded.descriptor.outputs;
        let tensors = self.outputs.iter().zip(ports).map(|((shape, buf), p)| {
            let data = buf.bytes()[..shape.iter().product::<usize>() * p.dtype.size()].to_vec();
            Tensor::new(p.dtype, shape.clone(), data.into()).expect("the buffer has the shape's size")
        });
        tensors.collect()
    }
}

/// One call of `parallel_for`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// When it began, after the start of the run.
    pub start: Duration,
    /// How long it took.
    pub time: Duration,
    /// Number of tasks.
    pub tasks: u64,
}

/// What [`record`] gets as its context.
struct Recorder<'a> {
    /// Who runs the tasks; nobody: the caller.
    inner: Option<&'a Parallel>,
    begin: Instant,
    spans: &'a mut Vec<Span>,
}

/// A `parallel_for` that takes the time.
///
/// # Safety
/// `ctx` is a [`Recorder`] that nobody else uses; `task` and `arg` belong together.
unsafe extern "C" fn record(ctx: *mut c_void, ntasks: u64, task: Task, arg: *mut c_void) {
    // SAFETY: as the caller promises; steps come one after the other.
    let recorder = unsafe { &mut *ctx.cast::<Recorder<'_>>() };
    let start = recorder.begin.elapsed();
    match recorder.inner.and_then(|p| Some((p.ctx, p.parallel_for?))) {
        // SAFETY: the pool's own function and context.
        Some((ctx, parallel_for)) => unsafe { parallel_for(ctx, ntasks, task, arg) },
        // SAFETY: each task once, by one worker.
        None => (0..ntasks).for_each(|i| unsafe { task(arg, i, 0) }),
    }
    let time = recorder.begin.elapsed().saturating_sub(start);
    // No allocation while the model runs.
    if recorder.spans.len() < recorder.spans.capacity() {
        recorder.spans.push(Span { start, time, tasks: ntasks });
    }
}

/// The pages of memory that a buffer is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pages {
    /// As they come.
    Any,
    /// Large ones, if the system has them and gives them: for reading at the highest rate.
    Large,
}

/// Zeroed memory at a multiple of 64 bytes.
struct AlignedBuf {
    at: NonNull<u8>,
    len: usize,
    /// Memory of its own; without, it is allocated.
    map: Option<MmapMut>,
}

impl AlignedBuf {
    fn layout(len: usize) -> Option<Layout> {
        // An empty buffer still has an address: models refuse null.
        Layout::from_size_align(len.max(1), bertc_rt::abi::WORKSPACE_ALIGN).ok()
    }

    fn zeroed(len: usize) -> Result<Self, Diag> {
        let layout = Self::layout(len);
        // SAFETY: the layout's size is not 0.
        let at = layout.and_then(|l| NonNull::new(unsafe { alloc_zeroed(l) }));
        let at = at.ok_or_else(|| Diag::new(format!("no memory for {len} bytes")))?;
        Ok(AlignedBuf { at, len, map: None })
    }

    fn in_large_pages(len: usize) -> Result<Self, Diag> {
        let fail = |e: std::io::Error| Diag::new(format!("no memory for {len} bytes: {e}"));
        let mut map = MmapMut::map_anon(len.max(1)).map_err(fail)?;
        // Only advice: small pages do as well, if more slowly.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let at = NonNull::from(&mut map[0]);
        Ok(AlignedBuf { at, len, map: Some(map) })
    }

    fn from_bytes(data: &[u8], pages: Pages) -> Result<Self, Diag> {
        let buf = match pages {
            Pages::Any => Self::zeroed(data.len())?,
            Pages::Large => Self::in_large_pages(data.len())?,
        };
        // SAFETY: the buffer is new and has room for all of `data`.
        unsafe { buf.at.as_ptr().copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        Ok(buf)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes were allocated or mapped, and zeroed; `run`, which writes them, borrows the session mutably.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.map.is_some() {
            return;
        }
        let layout = Self::layout(self.len).expect("the layout that it was allocated with");
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.at.as_ptr(), layout) }
    }
}

/// # Safety
/// `p` is null or a NUL-terminated string.
unsafe fn text(p: *const c_char) -> String {
    if p.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(p) }.to_string_lossy().into_owned()
}

/// # Safety
/// `p` points to `n` elements, or `n` is 0.
unsafe fn slice<'a, T>(p: *const T, n: usize) -> &'a [T] {
    if n == 0 || p.is_null() {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts(p, n) }
}

/// The names of a library's variants, and what chooses one of them; nothing where there is one.
///
/// # Safety
/// The library is one of bertc's.
unsafe fn variants(library: &Library, prefix: &str) -> (Vec<String>, Option<SelectVariant>) {
    let symbol = |name: &str| format!("{prefix}_{name}\0");
    // SAFETY: as the caller promises; the array ends with NULL, and the function stays as long as the library.
    unsafe {
        let names = library.get::<*const *const c_char>(symbol("variants").as_bytes());
        let select = library.get::<SelectVariant>(symbol("select_variant").as_bytes());
        let (Ok(names), Ok(select)) = (names, select) else { return (Vec::new(), None) };
        let each = (0..).map(|i| *names.add(i)).take_while(|p| !p.is_null());
        (each.map(|p| text(p)).collect(), Some(*select))
    }
}

/// # Safety
/// `m` is a complete descriptor.
unsafe fn describe(m: &Model) -> Result<Descriptor, String> {
    // SAFETY: counts and pointers of a descriptor belong together, and its names are strings.
    unsafe {
        let symbols: Vec<_> = slice(m.symbols, m.n_symbols as usize)
            .iter()
            .map(|s| SymbolInfo { name: text(s.name), min: s.min, max: s.max })
            .collect();
        let port = |t: &bertc_rt::Tensor| {
            let name = text(t.name);
            let dtype = dtype_of(t.dtype).ok_or_else(|| format!("'{name}' has the unknown type {}", t.dtype))?;
            let rank = usize::try_from(t.rank).map_err(|_| format!("'{name}' has the rank {}", t.rank))?;
            let dims = slice(t.dims, rank).iter().map(|d| match usize::try_from(d.symbol) {
                Ok(s) if s < symbols.len() => Ok(Extent::Symbol(s)),
                Err(_) if d.symbol == -1 => Ok(Extent::Const(d.value)),
                Err(_) if d.symbol == -2 => Ok(Extent::Computed),
                _ => Err(format!("'{name}' has a dim of the unknown kind {}", d.symbol)),
            });
            Ok::<_, String>(PortInfo { dims: dims.collect::<Result<_, _>>()?, name, dtype })
        };
        let inputs = slice(m.inputs, m.n_inputs as usize).iter().map(port).collect::<Result<_, _>>()?;
        let outputs = slice(m.outputs, m.n_outputs as usize).iter().map(port).collect::<Result<_, _>>()?;
        Ok(Descriptor { name: text(m.name), hash: text(m.hash), inputs, outputs, symbols })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_rt::abi::dtype;

    #[test]
    fn codes_and_types_agree() {
        let codes = [
            (dtype::F32, DType::F32),
            (dtype::F16, DType::F16),
            (dtype::BF16, DType::BF16),
            (dtype::F64, DType::F64),
            (dtype::I8, DType::I8),
            (dtype::U8, DType::U8),
            (dtype::I16, DType::I16),
            (dtype::U16, DType::U16),
            (dtype::I32, DType::I32),
            (dtype::U32, DType::U32),
            (dtype::I64, DType::I64),
            (dtype::U64, DType::U64),
            (dtype::BOOL, DType::Bool),
        ];
        assert_eq!(codes.len(), DType::ALL.len());
        for (code, t) in codes {
            assert_eq!(dtype_of(code), Some(t));
        }
        assert_eq!(dtype_of(13), None);
        assert_eq!(dtype_of(-1), None);
    }

    #[test]
    fn buffers_are_aligned_and_zero() {
        for len in [0, 1, 1000] {
            let b = AlignedBuf::zeroed(len).unwrap();
            assert_eq!(b.at.as_ptr() as usize % 64, 0);
            assert!(b.bytes().iter().all(|&x| x == 0) && b.bytes().len() == len);
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            for pages in [Pages::Any, Pages::Large] {
                let b = AlignedBuf::from_bytes(&data, pages).unwrap();
                assert_eq!((b.at.as_ptr() as usize % 64, b.bytes()), (0, &data[..]), "{pages:?}");
            }
        }
        assert!(AlignedBuf::zeroed(usize::MAX).is_err());
    }
}
