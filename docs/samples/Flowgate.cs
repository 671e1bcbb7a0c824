// Two plug-ins for Dataverse that call a flow through Flowgate. The key is in the secure configuration, which only
// administrators can read.
//
// No test runs this file: it needs the package Microsoft.CrmSdk.CoreAssemblies, .NET Framework 4.6.2 and an environment of
// Dataverse. README.md in this folder says how it is registered.
using System;
using System.Net.Http;
using System.Text;
using Microsoft.Xrm.Sdk;

namespace Flowgate.Samples
{
    /// One call of a flow, as both plug-ins make it.
    public abstract class FlowgatePlugin : IPlugin
    {
        private readonly Uri address;
        private readonly string key;

        protected FlowgatePlugin(string address, string key)
        {
            if (string.IsNullOrWhiteSpace(address) || string.IsNullOrWhiteSpace(key))
            {
                throw new InvalidPluginExecutionException(
                    "The unsecure configuration must have the address, the secure configuration the key.");
            }
            this.address = new Uri(address.Trim());
            this.key = key.Trim();
        }

        public abstract void Execute(IServiceProvider provider);

        protected string Send(string json)
        {
            using (var client = new HttpClient { Timeout = TimeSpan.FromSeconds(30) })
            using (var request = new HttpRequestMessage(HttpMethod.Post, address))
            {
                // The sandbox must not keep connections.
                request.Headers.ConnectionClose = true;
                request.Headers.Add("X-API-Key", key);
                request.Content = new StringContent(json, Encoding.UTF8, "application/json");
                using (var response = client.SendAsync(request).GetAwaiter().GetResult())
                {
                    var text = response.Content.ReadAsStringAsync().GetAwaiter().GetResult();
                    if (response.IsSuccessStatusCode)
                    {
                        return text;
                    }
                    // Neither key nor body: the message is shown to users and stored in the plug-in trace.
                    throw new InvalidPluginExecutionException(
                        $"The flow was not started or failed: {(int)response.StatusCode}, request {RequestId(response)}.");
                }
            }
        }

        private static string RequestId(HttpResponseMessage response)
        {
            return response.Headers.TryGetValues("x-request-id", out var values) ? string.Join(",", values) : "unknown";
        }
    }

    /// For an asynchronous step after Create or Update of a table.
    public sealed class RowChanged : FlowgatePlugin
    {
        public RowChanged(string unsecure, string secure) : base(unsecure, secure)
        {
        }

        public override void Execute(IServiceProvider provider)
        {
            var context = (IPluginExecutionContext)provider.GetService(typeof(IPluginExecutionContext));
            // Names of tables and messages, and GUIDs, need no escaping in JSON.
            Send($"{{\"table\":\"{context.PrimaryEntityName}\",\"id\":\"{context.PrimaryEntityId}\"," +
                $"\"message\":\"{context.MessageName}\",\"operation\":\"{context.OperationId}\"}}");
        }
    }

    /// For a synchronous step on the custom API `new_SendOrder`, with the text parameters `Body` (in) and `Answer` (out).
    public sealed class SendOrder : FlowgatePlugin
    {
        public SendOrder(string unsecure, string secure) : base(unsecure, secure)
        {
        }

        public override void Execute(IServiceProvider provider)
        {
            var context = (IPluginExecutionContext)provider.GetService(typeof(IPluginExecutionContext));
            context.OutputParameters["Answer"] = Send((string)context.InputParameters["Body"]);
        }
    }
}
