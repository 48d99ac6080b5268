//! Calls the compiled model through its descriptor. The only unsafe code of the program.

use std::ffi::{CStr, c_void};

use bertc_rt::{Model, Parallel, abi};

unsafe extern "C" {
    /// Defined by the object that `build.rs` writes.
    static minilm_model: Model;
}

/// 64 bytes at a multiple of 64: what a workspace consists of.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; abi::WORKSPACE_ALIGN]);

/// Mean of the last hidden state over each sentence's tokens, scaled to length 1.
pub fn embed(sentences: &[Vec<i64>], parallel: &Parallel) -> Result<Vec<Vec<f32>>, String> {
    // SAFETY: the object defines the symbol as a constant of this type.
    let model = unsafe { &minilm_model };
    if model.abi_version != bertc_rt::ABI_VERSION || model.n_symbols != 2 || model.n_inputs != 3 {
        return Err("the linked model is not all-MiniLM-L6-v2".into());
    }
    let length = sentences.iter().map(Vec::len).max().unwrap_or(0);
    // The model's dims, in their order: batch, sequence.
    let dims = [sentences.len() as i64, length as i64];
    let tokens = sentences.len() * length;

    let mut outputs = Vec::new();
    let mut shapes = Vec::new();
    for i in 0..model.n_outputs {
        // SAFETY: the descriptor has `n_outputs` outputs.
        let rank = unsafe { (*model.outputs.add(i as usize)).rank } as usize;
        let mut shape = vec![0i64; rank];
        // SAFETY: two dims go in, one extent for each dim of the output comes out.
        check(model, unsafe { (model.output_shape)(dims.as_ptr(), i, shape.as_mut_ptr()) })?;
        outputs.push(vec![0f32; shape.iter().product::<i64>() as usize]);
        shapes.push(shape);
    }

    let mut ids = vec![0i64; tokens];
    let mut mask = vec![0i64; tokens];
    let types = vec![0i64; tokens];
    for (i, s) in sentences.iter().enumerate() {
        ids[i * length..][..s.len()].copy_from_slice(s);
        mask[i * length..][..s.len()].fill(1);
    }
    // SAFETY: two dims go in.
    let bytes = unsafe { (model.workspace_size)(dims.as_ptr(), parallel.max_workers) };
    let mut workspace = vec![Line([0; abi::WORKSPACE_ALIGN]); bytes.div_ceil(abi::WORKSPACE_ALIGN)];
    let inputs = [&ids, &mask, &types].map(|t| t.as_ptr().cast::<c_void>());
    let out: Vec<*mut c_void> = outputs.iter_mut().map(|o| o.as_mut_ptr().cast()).collect();
    // SAFETY: inputs are batch × sequence i64, outputs are f32 of the shapes that the model told, and the workspace has
    // the size that it asked for; all live until the call returns.
    let code = unsafe {
        (model.run)(
            inputs.as_ptr(),
            dims.as_ptr(),
            out.as_ptr(),
            workspace.as_mut_ptr().cast(),
            bytes,
            parallel,
            std::ptr::null(),
        )
    };
    check(model, code)?;

    let width = *shapes[0].last().unwrap_or(&0) as usize;
    let rows = sentences.iter().enumerate();
    Ok(rows.map(|(i, s)| pool(&outputs[0][i * length * width..][..s.len() * width], width)).collect())
}

fn check(model: &Model, code: i32) -> Result<(), String> {
    if code == abi::status::OK {
        return Ok(());
    }
    // SAFETY: the text is a constant of the object.
    Err(unsafe { CStr::from_ptr((model.strerror)(code)) }.to_string_lossy().into_owned())
}

/// Mean of the rows, scaled to length 1.
fn pool(rows: &[f32], width: usize) -> Vec<f32> {
    let mut mean = vec![0f32; width];
    for row in rows.chunks_exact(width) {
        for (m, x) in mean.iter_mut().zip(row) {
            *m += x;
        }
    }
    let norm = mean.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    mean.iter().map(|x| x / norm).collect()
}
