using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using ActorVmm.Actors.Fleet;
using ActorVmm.Host.Descriptions;
using Microsoft.AspNetCore.Http;

namespace ActorVmm.Host.Api;

/// <summary>Every error of the API has one shape, wherever it comes from.</summary>
internal static class ApiErrors
{
    /// <summary>Answers with an error; nothing where the answer has begun already.</summary>
    public static async Task WriteAsync(HttpContext http, int status, string code, string message, IReadOnlyList<string>? details = null)
    {
        if (http.Response.HasStarted) return;
        http.Response.Clear();
        http.Response.StatusCode = status;
        if (status == StatusCodes.Status401Unauthorized) http.Response.Headers.WWWAuthenticate = "Bearer";
        http.Response.ContentType = "application/json; charset=utf-8";
        var body = JsonSerializer.SerializeToUtf8Bytes(new ErrorView(new ErrorBody(code, message, details)), ApiJson.Default.ErrorView);
        await http.Response.Body.WriteAsync(body).ConfigureAwait(false);
    }

    /// <summary>The outermost layer: exceptions and empty error answers take the one shape.</summary>
    public static async Task Shape(HttpContext http, RequestDelegate next)
    {
        try
        {
            await next(http).ConfigureAwait(false);
            var status = http.Response.StatusCode;
            if (status < 400 || http.Response.HasStarted || http.Response.ContentType is not null) return;
            await WriteAsync(http, status, CodeOf(status),
                // The binding of parameters answers with an empty 400: the query shows which of them it was.
                $"{http.Request.Method} {http.Request.Path}{(status == 400 ? http.Request.QueryString : default)}: {MessageOf(status)}")
                .ConfigureAwait(false);
        }
        catch (FleetException refused)
        {
            var (status, code) = refused.Fault switch
            {
                FleetFault.NotFound => (404, "not-found"),
                FleetFault.Conflict => (409, "conflict"),
                FleetFault.Limit    => (409, "limit"),
                _                   => (502, "failed"),
            };
            await WriteAsync(http, status, code, refused.Message).ConfigureAwait(false);
        }
        catch (DescriptionException wrong)
        {
            await WriteAsync(http, 400, "bad-description",
                wrong.Errors.Count == 1 ? wrong.Errors[0].ToString() : $"{wrong.Errors.Count} errors",
                [.. wrong.Errors.Select(error => error.ToString())]).ConfigureAwait(false);
        }
        catch (BadHttpRequestException bad)
        {
            await WriteAsync(http, bad.StatusCode, CodeOf(bad.StatusCode), bad.Message).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is not OperationCanceledException)
        {
            await WriteAsync(http, 500, "failed", $"{http.Request.Method} {http.Request.Path}: {failure.Message}").ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (http.RequestAborted.IsCancellationRequested)
        {
            // Whoever asked has gone.
        }
    }

    /// <summary>
    /// Whoever comes over TCP shows the token; compared in constant time. The page itself and nothing else may be fetched without, since a
    /// browser cannot send the header with its first request.
    /// </summary>
    public static async Task Authorize(HttpContext http, RequestDelegate next, string? token)
    {
        var isTcp = http.Connection.LocalIpAddress is not null;
        if (!isTcp || (HttpMethods.IsGet(http.Request.Method) && http.Request.Path == "/"))
        {
            await next(http).ConfigureAwait(false);
            return;
        }

        const string Scheme = "Bearer ";
        var header = http.Request.Headers.Authorization.ToString();
        var given = header.StartsWith(Scheme, StringComparison.OrdinalIgnoreCase) ? header[Scheme.Length..].Trim() : "";
        if (token is { Length: > 0 }
            && CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(given), Encoding.UTF8.GetBytes(token)))
        {
            await next(http).ConfigureAwait(false);
            return;
        }

        await WriteAsync(http, 401, "unauthorized",
            "over TCP every call needs the header Authorization: Bearer TOKEN").ConfigureAwait(false);
    }

    private static string CodeOf(int status) => status switch
    {
        404 => "not-found", 405 => "method-not-allowed", 413 => "too-large", 415 => "unsupported-media-type", 408 => "timeout",
        >= 500 => "failed", _ => "bad-request",
    };

    private static string MessageOf(int status) => status switch
    {
        400 => "a parameter is missing or cannot be read; GET /openapi/v1.json has their types",
        404 => "there is no such path; GET /openapi/v1.json lists them",
        405 => "this path has other methods; GET /openapi/v1.json lists them",
        _   => "the request was refused",
    };
}
