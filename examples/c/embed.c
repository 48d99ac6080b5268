/* Embeds sentences with all-MiniLM-L6-v2 and prints how similar they are.
 *
 *   make MODEL=path/to/all-MiniLM-L6-v2.onnx
 *   ./embed sentences.ids [THREADS]
 *
 * The file holds the token ids of one sentence a line, separated by spaces, special tokens included. sentences.ids is
 * sentences.txt after the model's tokenizer; examples/rust tokenizes by itself.
 *
 * An embedding is the mean of last_hidden_state over a sentence's tokens, scaled to length 1; the similarity of two
 * sentences is the dot product of theirs.
 */
#define _POSIX_C_SOURCE 200112L

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "minilm.h"
#include "bertc_rt.h"

typedef struct {
  int64_t *ids;
  size_t n;
} sentence;

typedef struct {
  sentence *list;
  size_t n;
} sentences;

static void free_sentences(sentences *s) {
  for (size_t i = 0; i < s->n; i++) free(s->list[i].ids);
  free(s->list);
}

/* Reads one line of numbers; 0 at the end of the file, -1 with a message on errors. */
static int read_line(FILE *f, size_t line, sentence *out) {
  size_t room = 0;
  out->ids = NULL;
  out->n = 0;
  for (;;) {
    int c = fgetc(f);
    while (c == ' ' || c == '\t' || c == '\r') c = fgetc(f);
    if (c == '\n') return 1;
    if (c == EOF) return out->n > 0;
    ungetc(c, f);
    long long id;
    if (fscanf(f, "%lld", &id) != 1) {
      fprintf(stderr, "line %zu: expected token ids separated by spaces\n", line);
      return -1;
    }
    if (out->n == room) {
      room = room ? 2 * room : 32;
      int64_t *more = realloc(out->ids, room * sizeof *more);
      if (more == NULL) {
        fprintf(stderr, "no memory\n");
        return -1;
      }
      out->ids = more;
    }
    out->ids[out->n++] = id;
  }
}

static int read_sentences(const char *path, sentences *out) {
  FILE *f = fopen(path, "r");
  if (f == NULL) {
    perror(path);
    return 0;
  }
  int got;
  sentence s;
  size_t line = 1;
  while ((got = read_line(f, line++, &s)) > 0) {
    sentence *more = s.n ? realloc(out->list, (out->n + 1) * sizeof *more) : NULL;
    if (more == NULL) {
      free(s.ids);
      if (s.n == 0) continue; /* an empty line */
      got = -1;
      break;
    }
    out->list = more;
    out->list[out->n++] = s;
  }
  if (got < 0 || ferror(f)) got = -1;
  fclose(f);
  if (got == 0 && out->n == 0) fprintf(stderr, "%s: no sentences\n", path);
  return got == 0 && out->n > 0;
}

/* Mean over the tokens that the mask keeps, scaled to length 1. */
static void pool_tokens(const float *hidden, size_t tokens, size_t width, float *embedding) {
  double length = 0;
  for (size_t k = 0; k < width; k++) {
    double sum = 0;
    for (size_t t = 0; t < tokens; t++) sum += hidden[t * width + k];
    embedding[k] = (float)(sum / (double)tokens);
    length += (double)embedding[k] * embedding[k];
  }
  for (size_t k = 0; k < width; k++) embedding[k] = (float)(embedding[k] / sqrt(length > 0 ? length : 1));
}

/* Embeds all sentences as one padded batch: n rows of `width` numbers, for free(). NULL with a message on errors. */
static float *embed(const sentences *s, const bertc_parallel *parallel, size_t *width) {
  minilm_dims dims = {0};
  dims.batch = (int64_t)s->n;
  for (size_t i = 0; i < s->n; i++)
    if ((int64_t)s->list[i].n > dims.sequence) dims.sequence = (int64_t)s->list[i].n;
  size_t batch = (size_t)dims.batch, length = (size_t)dims.sequence;

  int64_t shape[3];
  int32_t code = minilm_output_shape(&dims, 0, shape);
  if (code != BERTC_OK) {
    fprintf(stderr, "%zu sentences of up to %zu tokens: %s\n", batch, length, minilm_strerror(code));
    return NULL;
  }
  *width = (size_t)shape[2];

  bertc_options options;
  bertc_default_options(&options);
  size_t bytes = minilm_workspace_size(&dims, parallel ? parallel->max_workers : 1);
  int64_t *tokens = calloc(3 * batch * length, sizeof *tokens);
  float *hidden = malloc(batch * length * *width * sizeof *hidden);
  float *pooled = malloc(batch * *width * sizeof *pooled);
  float *embeddings = malloc(batch * *width * sizeof *embeddings);
  void *workspace = NULL;
  int ok = tokens && hidden && pooled && embeddings && posix_memalign(&workspace, BERTC_WORKSPACE_ALIGN, bytes) == 0;
  if (!ok) fprintf(stderr, "no memory\n");

  if (ok) {
    int64_t *mask = tokens + batch * length; /* after it, the token types: all 0 */
    for (size_t i = 0; i < batch; i++) {
      for (size_t t = 0; t < s->list[i].n; t++) {
        tokens[i * length + t] = s->list[i].ids[t];
        mask[i * length + t] = 1;
      }
    }
    minilm_inputs in = {0};
    in.input_ids = tokens;
    in.attention_mask = mask;
    in.token_type_ids = mask + batch * length;
    minilm_outputs out = {0};
    out.last_hidden_state = hidden;
#ifndef NO_POOLER /* some exports of the model lack this output */
    out.pooler_output = pooled;
#endif
    code = minilm_run(&in, &dims, &out, workspace, bytes, parallel, &options);
    ok = code == BERTC_OK;
    if (!ok) fprintf(stderr, "minilm_run: %s\n", minilm_strerror(code));
  }
  for (size_t i = 0; ok && i < batch; i++)
    pool_tokens(hidden + i * length * *width, s->list[i].n, *width, embeddings + i * *width);

  free(workspace);
  free(pooled);
  free(hidden);
  free(tokens);
  if (ok) return embeddings;
  free(embeddings);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc < 2 || argc > 3) {
    fprintf(stderr, "usage: %s FILE.ids [THREADS]\n", argv[0]);
    return 2;
  }
  long threads = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
  if (threads < 0 || threads > BERTC_POOL_MAX_THREADS) {
    fprintf(stderr, "THREADS: expected 0 (one for each CPU) to %d\n", BERTC_POOL_MAX_THREADS);
    return 2;
  }
  int status = 1;
  size_t width = 0;
  sentences s = {0};
  float *e = NULL;
  bertc_pool *pool = bertc_pool_create((uint32_t)threads);
  if (pool == NULL) fprintf(stderr, "no threads; running on one\n");

  if (read_sentences(argv[1], &s)) e = embed(&s, bertc_pool_parallel(pool), &width);
  if (e != NULL) {
    for (size_t i = 0; i < s.n; i++) {
      for (size_t j = 0; j < s.n; j++) {
        double dot = 0;
        for (size_t k = 0; k < width; k++) dot += (double)e[i * width + k] * e[j * width + k];
        printf("%s%7.4f", j ? " " : "", dot);
      }
      printf("\n");
    }
    status = 0;
  }
  free(e);
  free_sentences(&s);
  bertc_pool_destroy(pool);
  return status;
}
