// The JavaScript client in Chromium, sealed.

import { flows } from "./browser-flows.mjs";
import { encrypts } from "./encrypts.mjs";

const skip = !(await encrypts());
flows({ protocol: "json", encryption: "required", skip });
flows({ protocol: "msgpack", encryption: "required", skip });
