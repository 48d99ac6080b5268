//! The model's constant description: `P_model`, the tables it points to, the error messages, and the names of variants.

use bertc_ir::{DType, Diag, TensorType};
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module};
use cranelift_object::ObjectModule;

use super::module_error;
use crate::emit::driver::ERROR_TEXT;
use crate::plan::Program;

/// Version of the C interface.
const ABI_VERSION: u32 = 1;
/// `sizeof(bertc_model)`.
const MODEL_SIZE: u32 = 96;
/// `sizeof(bertc_tensor)`.
const TENSOR_SIZE: usize = 24;
/// `sizeof(bertc_dim)`.
const DIM_SIZE: usize = 16;

/// The functions that the description points to.
pub(crate) struct Entries {
    pub workspace_size: FuncId,
    pub run: FuncId,
    pub strerror: FuncId,
    pub output_shape: FuncId,
}

/// The data objects that are declared before the code, which refers to them.
pub(crate) struct Tables {
    strings: DataId,
    /// Starts with the table of error messages.
    pub tables: DataId,
    model: DataId,
    /// The names of variants, where there are several.
    variants: Option<DataId>,
}

impl Tables {
    pub fn declare(m: &mut ObjectModule, name: &str, several: bool) -> Result<Tables, Diag> {
        let mut data = |what: &str, linkage| {
            m.declare_data(&format!("{name}_{what}"), linkage, false, false).map_err(module_error)
        };
        Ok(Tables {
            strings: data("strings", Linkage::Local)?,
            tables: data("tables", Linkage::Local)?,
            model: data("model", Linkage::Export)?,
            variants: several.then(|| data("variants", Linkage::Export)).transpose()?,
        })
    }

    /// Defines all of them; their size in bytes. `variants` are the names, in order.
    pub fn define(
        &self,
        m: &mut ObjectModule,
        p: &Program,
        hash: &str,
        e: &Entries,
        variants: &[&str],
    ) -> Result<u64, Diag> {
        let mut strings = Strings::default();
        let mut t = Blob::default();
        for text in ERROR_TEXT {
            t.pointer(self.strings, strings.add(text)?);
        }
        let symbols = t.bytes.len();
        for (_, s) in p.symbols.iter() {
            t.pointer(self.strings, strings.add(&s.name)?);
            t.i64(s.min);
            t.i64(s.max);
        }
        let ports: Vec<(&str, &TensorType)> =
            p.inputs.iter().chain(&p.outputs).map(|p| (p.name.as_str(), &p.ty)).collect();
        let inputs = t.bytes.len();
        let outputs = inputs + p.inputs.len() * TENSOR_SIZE;
        let mut dims = inputs + ports.len() * TENSOR_SIZE;
        for (name, ty) in &ports {
            t.pointer(self.strings, strings.add(name)?);
            t.i32(dtype_code(ty.dtype));
            t.i32(ty.rank() as i32);
            t.pointer(self.tables, dims);
            dims += ty.rank() * DIM_SIZE;
        }
        for d in ports.iter().flat_map(|(_, ty)| &ty.shape) {
            let (symbol, value) = match (d.as_symbol(), d.as_const()) {
                (Some(s), _) => (s.0 as i32, 0),
                (_, Some(c)) => (-1, c),
                _ => (-2, 0),
            };
            t.i32(symbol);
            t.i32(0);
            t.i64(value);
        }

        let mut d = Blob::default();
        d.i32(ABI_VERSION as i32);
        d.i32(MODEL_SIZE as i32);
        d.pointer(self.strings, strings.add(&p.name)?);
        d.pointer(self.strings, strings.add(hash)?);
        for n in [p.symbols.len(), p.inputs.len(), p.outputs.len(), 0] {
            d.i32(n as i32);
        }
        for table in [symbols, inputs, outputs] {
            d.pointer(self.tables, table);
        }
        for f in [e.workspace_size, e.run, e.strerror, e.output_shape] {
            d.function(f);
        }
        debug_assert_eq!(d.bytes.len(), MODEL_SIZE as usize);

        let mut names = Blob::default();
        if self.variants.is_some() {
            for name in variants {
                names.pointer(self.strings, strings.add(name)?);
            }
            names.i64(0);
        }

        let size = strings.0.len() + t.bytes.len() + d.bytes.len() + names.bytes.len();
        let text = Blob { bytes: strings.0, ..Blob::default() };
        for (id, blob) in [(self.strings, text), (self.tables, t), (self.model, d)] {
            blob.define(m, id)?;
        }
        if let Some(id) = self.variants {
            names.define(m, id)?;
        }
        Ok(size as u64)
    }
}

/// The code of a type in the C interface.
fn dtype_code(d: DType) -> i32 {
    // The C enum has the order of the Rust one.
    d as i32
}

/// NUL-terminated strings, one after the other.
#[derive(Default)]
struct Strings(Vec<u8>);

impl Strings {
    /// Adds a string; its offset.
    fn add(&mut self, s: &str) -> Result<usize, Diag> {
        if s.contains('\0') {
            return Err(Diag::new(format!("the name {s:?} has a zero byte, which C can't represent")));
        }
        let at = self.0.len();
        self.0.extend(s.bytes());
        self.0.push(0);
        Ok(at)
    }
}

/// Bytes with addresses in them.
#[derive(Default)]
struct Blob {
    bytes: Vec<u8>,
    pointers: Vec<(usize, DataId, usize)>,
    functions: Vec<(usize, FuncId)>,
}

impl Blob {
    fn i32(&mut self, v: i32) {
        self.bytes.extend(v.to_le_bytes());
    }

    fn i64(&mut self, v: i64) {
        self.bytes.extend(v.to_le_bytes());
    }

    fn pointer(&mut self, data: DataId, offset: usize) {
        self.pointers.push((self.bytes.len(), data, offset));
        self.i64(0);
    }

    fn function(&mut self, f: FuncId) {
        self.functions.push((self.bytes.len(), f));
        self.i64(0);
    }

    fn define(self, m: &mut ObjectModule, id: DataId) -> Result<(), Diag> {
        let mut d = DataDescription::new();
        d.define(self.bytes.into_boxed_slice());
        d.set_align(8);
        for (at, data, offset) in self.pointers {
            let g = m.declare_data_in_data(data, &mut d);
            d.write_data_addr(at as u32, g, offset as i64);
        }
        for (at, f) in self.functions {
            let f = m.declare_func_in_data(f, &mut d);
            d.write_function_addr(at as u32, f);
        }
        m.define_data(id, &d).map_err(module_error)
    }
}
