/* bertc.h: what every compiled model has in common. ABI version 1; docs/abi.md explains it.
 *
 * Each generated MODEL.h carries this text behind the same guard, so an app needs this file only
 * when it drives models generically, through bertc_model.
 */
#ifndef BERTC_ABI_H
#define BERTC_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BERTC_ABI_VERSION 1

/* The alignment of `workspace`, in bytes. */
#define BERTC_WORKSPACE_ALIGN 64

/* Error codes of MODEL_run. On any code but BERTC_OK the outputs are untouched. */
enum {
  BERTC_OK = 0,
  BERTC_NULL_POINTER = 1,         /* a required pointer is NULL */
  BERTC_DIM_OUT_OF_RANGE = 2,     /* a dim is outside the range of its symbol */
  BERTC_WORKSPACE_TOO_SMALL = 3,  /* workspace_bytes < MODEL_workspace_size(...) */
  BERTC_WORKSPACE_MISALIGNED = 4, /* workspace is not a multiple of 64 */
  BERTC_INDEX_OUT_OF_RANGE = 5,   /* an index input, such as a token id, is out of range */
  BERTC_BAD_PARALLEL = 6,         /* max_workers or reserved is wrong, or parallel_for is NULL */
  BERTC_BAD_OPTIONS = 7,          /* size is too small, or flags has an unknown bit */
  BERTC_CPU_UNSUPPORTED = 8       /* compiled for a CPU feature that this machine lacks */
};

/* Element types. A BOOL is one byte, 0 or 1; F16 is IEEE binary16; BF16 the upper half of an F32. */
enum {
  BERTC_F32 = 0,
  BERTC_F16 = 1,
  BERTC_BF16 = 2,
  BERTC_F64 = 3,
  BERTC_I8 = 4,
  BERTC_U8 = 5,
  BERTC_I16 = 6,
  BERTC_U16 = 7,
  BERTC_I32 = 8,
  BERTC_U32 = 9,
  BERTC_I64 = 10,
  BERTC_U64 = 11,
  BERTC_BOOL = 12
};

/* Bits of bertc_options.cpu_features (AArch64 only; x86-64 objects ask CPUID themselves). */
#define BERTC_CPU_DOTPROD ((uint64_t)1 << 0) /* sdot, udot */
#define BERTC_CPU_I8MM ((uint64_t)1 << 1)    /* smmla, ummla, usmmla */
#define BERTC_CPU_BF16 ((uint64_t)1 << 2)    /* bfdot, bfmmla */

/* How a model uses threads. bertc_rt fills one; an app can fill its own instead.
 *
 * parallel_for calls fn(arg, task, worker) once for each task in 0..ntasks, in any order and on any
 * threads, and returns when all calls have returned. worker < max_workers, and no two calls that run
 * at the same time within one parallel_for have the same worker. All writes made before parallel_for
 * are visible to the tasks, and theirs to the code after it.
 */
typedef struct bertc_parallel {
  void *ctx;            /* handed to parallel_for */
  uint32_t max_workers; /* at least 1 */
  uint32_t reserved;    /* 0 */
  void (*parallel_for)(void *ctx, uint64_t ntasks,
                       void (*fn)(void *arg, uint64_t task, uint32_t worker), void *arg);
} bertc_parallel;

typedef struct bertc_options {
  uint32_t size;         /* sizeof(bertc_options) */
  uint32_t flags;        /* 0 */
  uint64_t cpu_features; /* from bertc_cpu_features(); 0: the target's baseline */
} bertc_options;

/* A named dim: every run picks a value in min..=max. */
typedef struct bertc_symbol {
  const char *name;
  int64_t min, max;
} bertc_symbol;

typedef struct bertc_dim {
  int32_t symbol;   /* an index into bertc_model.symbols; -1: the constant `value`; -2: ask output_shape */
  int32_t reserved; /* 0 */
  int64_t value;
} bertc_dim;

/* An input or output: row-major, no padding between elements. */
typedef struct bertc_tensor {
  const char *name;      /* the ONNX name */
  int32_t dtype;         /* BERTC_F32 ... BERTC_BOOL */
  int32_t rank;          /* 0: a scalar, and dims may be NULL */
  const bertc_dim *dims; /* rank of them */
} bertc_tensor;

/* The constant MODEL_model: everything a generic tool needs to drive a model that it has never seen. */
typedef struct bertc_model {
  uint32_t abi_version; /* BERTC_ABI_VERSION */
  uint32_t struct_size; /* sizeof(bertc_model) when the object was written */
  const char *name;
  const char *hash; /* BLAKE3 of the model and of the compiler's flags, in hex */
  uint32_t n_symbols, n_inputs, n_outputs, reserved;
  const bertc_symbol *symbols;
  const bertc_tensor *inputs;
  const bertc_tensor *outputs;
  /* Bytes of workspace that a run with these dims and at most max_workers workers needs; 0: dims out of range. */
  size_t (*workspace_size)(const int64_t *dims, uint32_t max_workers);
  /* inputs, dims and outputs have n_inputs, n_symbols and n_outputs elements. */
  int32_t (*run)(const void *const *inputs, const int64_t *dims, void *const *outputs, void *workspace,
                 size_t workspace_bytes, const bertc_parallel *parallel, const bertc_options *options);
  const char *(*strerror)(int32_t code);
  /* Writes outputs[output].rank extents to shape. */
  int32_t (*output_shape)(const int64_t *dims, uint32_t output, int64_t *shape);
} bertc_model;

#ifdef __cplusplus
}
#endif
#endif /* BERTC_ABI_H */
