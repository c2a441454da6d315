using System.Text;
using System.Text.Json;
using ActorVmm.Host.Tests.Fleet;
using Microsoft.OpenApi;
using Microsoft.OpenApi.Reader;

namespace ActorVmm.Host.Tests.Api;

/// <summary>The OpenAPI document, read and checked by the library that others read it with.</summary>
public sealed class OpenApiTests
{
    [Fact]
    public async Task The_document_is_valid_and_each_path_answers_as_it_says()
    {
        await using var host = await new HostFixture().StartAsync("");
        using var http = host.Http();
        var text = await http.GetStringAsync("/openapi/v1.json");
        using var stream = new MemoryStream(Encoding.UTF8.GetBytes(text));
        var read = await OpenApiDocument.LoadAsync(stream, OpenApiConstants.Json, new OpenApiReaderSettings { RuleSet = ValidationRuleSet.GetDefaultRuleSet() });
        Assert.Empty(read.Diagnostic!.Errors);
        var document = read.Document!;
        Assert.StartsWith("3.", JsonDocument.Parse(text).RootElement.GetProperty("openapi").GetString()!, StringComparison.Ordinal);
        Assert.NotEmpty(document.Info.Title!);
        foreach (var (path, item) in document.Paths)
        {
            foreach (var (method, operation) in item.Operations!)
            {
                Assert.False(string.IsNullOrEmpty(operation.Summary), $"{method} {path} says nothing of itself");
                Assert.NotEmpty(operation.Responses!);
                // Every word in braces is a parameter of the path, and every error that is told of has the one shape.
                foreach (var name in path.Split('/').Where(part => part.StartsWith('{')).Select(part => part.Trim('{', '}')))
                    Assert.Contains(operation.Parameters!, parameter => parameter.Name == name && parameter.In == ParameterLocation.Path && parameter.Required);
                // No such VM: the answer is one of those that the document lists.
                using var request = new HttpRequestMessage(method, path.Replace("{name}", "nix", StringComparison.Ordinal)
                    .Replace("{device}", "net0?state=up", StringComparison.Ordinal));
                if (operation.RequestBody is not null) request.Content = new StringContent("{}");
                using var answer = await http.SendAsync(request);
                var status = ((int)answer.StatusCode).ToString(System.Globalization.CultureInfo.InvariantCulture);
                Assert.True(operation.Responses!.ContainsKey(status), $"{method} {path} answers {status}; the document has {string.Join(", ", operation.Responses.Keys)}");
            }
        }

        foreach (var (path, method) in ((string, HttpMethod)[])[("/vms", HttpMethod.Post), ("/vms/{name}/faults", HttpMethod.Post)])
        {
            Assert.NotNull(document.Paths[path].Operations![method].RequestBody);
            Assert.Contains("413", document.Paths[path].Operations![method].Responses!.Keys);
        }

        // What can be told of each is told: a deadline where a guest ends, a token where there may be none.
        foreach (var verb in (string[])["start", "stop", "kill", "restart", "pause", "resume"])
            Assert.Equal(verb is "stop" or "restart", document.Paths[$"/vms/{{name}}/{verb}"].Operations![HttpMethod.Post].Parameters!
                .Any(parameter => parameter.Name == "deadline"));
        Assert.Contains("text/event-stream", document.Paths["/events"].Operations![HttpMethod.Get].Responses!["200"].Content!.Keys);
        Assert.Contains("401", document.Paths["/vms"].Operations![HttpMethod.Get].Responses!.Keys);
    }

    [Fact]
    public async Task A_value_of_a_query_that_cannot_be_read_is_named()
    {
        await using var host = await new HostFixture().StartAsync("");
        using var http = host.Http();
        using var answer = await http.GetAsync("/events?after=soon");
        using var error = JsonDocument.Parse(await answer.Content.ReadAsStringAsync());
        Assert.Equal((400, "bad-request"), ((int)answer.StatusCode, error.RootElement.GetProperty("error").GetProperty("code").GetString()));
        Assert.Matches("after=soon: a parameter .* cannot be read", error.RootElement.GetProperty("error").GetProperty("message").GetString()!);
    }
}
