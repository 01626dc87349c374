typedef int placeholder; /* not written yet */
