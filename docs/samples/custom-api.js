// Calls the custom API `new_SendOrder` from a page of a model-driven app (a web resource); the browser never has the key. No test
// runs this file: it needs an environment of Dataverse.
async function sendOrder(order) {
  const response = await fetch("/api/data/v9.2/new_SendOrder", {
    method: "POST",
    headers: { "Content-Type": "application/json", "OData-Version": "4.0" },
    body: JSON.stringify({ Body: JSON.stringify(order) }),
  });
  const result = await response.json();
  if (!response.ok) {
    throw new Error(result.error.message);
  }
  return result.Answer;
}
