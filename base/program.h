/* Where the project's own programs and data are: beside the running program (the build tree), else where they were installed. */
#ifndef BASE_PROGRAM_H
#define BASE_PROGRAM_H

/* new: absolute path of one of our programs ("aetherfs", "aetherfs-server", "aetherfs-shim", "aetherfs-helper").
 * Falls back to the installed path whether it is there or not. */
char *program_path(const char *name);

/* new: the directory of the recipes (contrib/recipes/ *.yaml). */
char *program_recipes_dir(void);

/* new: an executable of that name in PATH ("a/b" is returned as it is when executable); NULL when there is none. */
char *program_in_path(const char *name, const char *path);

#endif
