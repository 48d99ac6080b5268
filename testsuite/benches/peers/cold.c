/* Loads a model that bertc compiled and runs it once: a whole process, from exec to exit.
 *
 * usage:  cold LIBRARY.so BATCH SEQUENCE       prints the peak of resident memory, in kB
 */
#include "bertc.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *filled(size_t n, int kind) {
  int64_t *values = malloc(n * sizeof *values);
  for (size_t i = 0; values && i < n; i++) values[i] = kind == 'i' ? 100 + (int64_t)(i * 977 % 19900) : kind == 'a';
  return values;
}

int main(int argc, char **argv) {
  void *library = argc == 4 ? dlopen(argv[1], RTLD_NOW) : NULL;
  const bertc_model *model = library ? dlsym(library, "peer_model") : NULL;
  if (!model || model->abi_version != BERTC_ABI_VERSION || model->n_inputs > 8 || model->n_outputs > 8 || model->n_symbols > 8) {
    return 2;
  }
  int64_t batch = atoll(argv[2]), sequence = atoll(argv[3]), dims[8], shape[8];
  const void *inputs[8];
  void *outputs[8];
  for (uint32_t i = 0; i < model->n_symbols; i++) dims[i] = strcmp(model->symbols[i].name, "batch") ? sequence : batch;
  /* input_ids, attention_mask or token_type_ids */
  for (uint32_t i = 0; i < model->n_inputs; i++) inputs[i] = filled((size_t)(batch * sequence), model->inputs[i].name[0]);
  for (uint32_t i = 0; i < model->n_outputs; i++) {
    size_t n = sizeof(float);
    if (model->outputs[i].rank > 8 || model->output_shape(dims, i, shape)) return 2;
    for (int32_t d = 0; d < model->outputs[i].rank; d++) n *= (size_t)shape[d];
    outputs[i] = malloc(n);
  }
  size_t bytes = model->workspace_size(dims, 1);
  void *workspace = aligned_alloc(BERTC_WORKSPACE_ALIGN, (bytes + 63) / 64 * 64);
  int32_t code = model->run(inputs, dims, outputs, workspace, bytes, NULL, NULL);
  if (code) fprintf(stderr, "%s\n", model->strerror(code));

  char line[256];
  FILE *status = fopen("/proc/self/status", "r");
  while (status && fgets(line, sizeof line, status)) {
    if (!strncmp(line, "VmHWM:", 6)) printf("%lld\n", atoll(line + 6));
  }
  return code;
}
