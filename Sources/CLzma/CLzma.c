#include "CLzma.h"
