/* A JSON value as YAML for people, in block style. Whatever reads YAML 1.1 or 1.2 reads the same. */
#ifndef PROVISIONER_YAML_TEXT_H
#define PROVISIONER_YAML_TEXT_H

#include <jansson.h>

#include "base/buffer.h"

/* Mappings are sorted by key but for the outermost, which keeps its order. */
void yaml_text(const json_t *value, struct buffer *out);

#endif
