// The JavaScript client in Chromium, in clear.

import { flows } from "./browser-flows.mjs";

flows({ protocol: "json" });
flows({ protocol: "msgpack" });
