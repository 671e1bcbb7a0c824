// Asks the libraries of vendors whether they accept requests that were signed for them: reads a file with a list of requests
// in JSON and prints `accepted` or `refused` for each.

const fs = require("node:fs");
const path = require("node:path");
const { pathToFileURL } = require("node:url");
const hubspot = require("@hubspot/api-client");
const line = require("@line/bot-sdk");
const octokit = module_of("@octokit/webhooks-methods/dist-node/index.js");
const linear = module_of("@linear/sdk/dist/webhooks/index.mjs");
const paddle = require("@paddle/paddle-node-sdk");
const razorpay = require("razorpay");
const square = require("square");
const standard = require("standardwebhooks");
const stripe = require("stripe");
const twilio = require("twilio");
const workos = require("@workos-inc/node");
const adyen = require("@adyen/api-library");

// ES modules are not looked up in NODE_PATH.
function module_of(file) {
  return import(pathToFileURL(path.join(process.env.NODE_PATH, file)));
}

const verifiers = {
  "adyen-platform": (r) =>
    new adyen.hmacValidator().validateHMACSignature(r.secret, r.headers["hmacsignature"], r.body),
  github: async (r) => (await octokit).verify(r.secret, r.body, r.headers["x-hub-signature-256"]),
  hubspot: (r) =>
    hubspot.Signature.isValid({
      method: "POST",
      signatureVersion: "v3",
      signature: r.headers["x-hubspot-signature-v3"],
      clientSecret: r.secret,
      requestBody: r.body,
      // This library leaves decoding to its caller.
      url: r.decoded_url,
      timestamp: Number(r.headers["x-hubspot-request-timestamp"]),
    }),
  line: (r) => line.validateSignature(r.body, r.secret, r.headers["x-line-signature"]),
  linear: async (r) =>
    new (await linear).LinearWebhookClient(r.secret).verify(Buffer.from(r.body), r.headers["linear-signature"]),
  paddle: (r) =>
    new paddle.Paddle("key").webhooks.isSignatureValid(r.body, r.secret, r.headers["paddle-signature"]),
  razorpay: (r) => razorpay.validateWebhookSignature(r.body, r.headers["x-razorpay-signature"], r.secret),
  square: (r) =>
    square.WebhooksHelper.verifySignature({
      requestBody: r.body,
      signatureHeader: r.headers["x-square-hmacsha256-signature"],
      signatureKey: r.secret,
      notificationUrl: r.url,
    }),
  "standard-webhooks": (r) => new standard.Webhook(r.secret).verify(r.body, r.headers),
  stripe: (r) =>
    stripe.webhooks.constructEvent(r.body, r.headers["stripe-signature"], r.secret) !== undefined,
  twilio: (r) =>
    r.url.includes("bodySHA256")
      ? twilio.validateRequestWithBody(r.secret, r.headers["x-twilio-signature"], r.url, r.body)
      : twilio.validateRequest(
          r.secret,
          r.headers["x-twilio-signature"],
          r.url,
          Object.fromEntries(new URLSearchParams(r.body)),
        ),
  workos: (r) =>
    new workos.WorkOS("sk_test").webhooks.verifyHeader({
      // This library writes it anew.
      payload: JSON.parse(r.body),
      sigHeader: r.headers["workos-signature"],
      secret: r.secret,
    }),
};

(async () => {
  for (const request of JSON.parse(fs.readFileSync(process.argv[2], "utf8"))) {
    let isAccepted;
    try {
      isAccepted = (await verifiers[request.preset](request)) !== false;
    } catch (error) {
      // A library that cannot be called at all must not look like a refusal.
      if (error instanceof TypeError || error instanceof ReferenceError || error.code?.startsWith("ERR_")) throw error;
      isAccepted = false;
    }
    console.log(isAccepted ? "accepted" : "refused");
  }
})();
