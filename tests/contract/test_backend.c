/* What every backend promises, over those that need nothing installed. */
#include "tests/contract/backend_suite.h"

int main(void)
{
	static const char *const names[] = {"process", "memory", NULL};
	return run_suite(names);
}
