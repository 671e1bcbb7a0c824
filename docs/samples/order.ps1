# Sends a JSON body to a flow through Flowgate, and repeats it only where no run of the flow can have started.
# It needs PowerShell 7.
#
#   $env:FLOWGATE_URL = 'https://hooks.example.com/orders'; $env:FLOWGATE_KEY = 'flowgate_...'
#   pwsh order.ps1 '{"order": 17}'
param([Parameter(Mandatory)][string] $Body)
$ErrorActionPreference = 'Stop'

$attempts = 5
$request = @{
    Method = 'Post'
    Uri = $env:FLOWGATE_URL
    Headers = @{ 'X-API-Key' = $env:FLOWGATE_KEY }
    ContentType = 'application/json'
    Body = [Text.Encoding]::UTF8.GetBytes($Body)
    TimeoutSec = 130 # A flow may take 120 s.
    SkipHttpErrorCheck = $true
}
for ($attempt = 1; ; $attempt++) {
    # It fails where no answer arrives. Then a run may have started, and nothing is repeated.
    $response = Invoke-WebRequest @request
    $text = if ($response.Content -is [byte[]]) { [Text.Encoding]::UTF8.GetString($response.Content) } else { $response.Content }
    if ($response.StatusCode -lt 300) {
        $text
        exit 0
    }
    $problem = $null
    if ("$($response.Headers['Content-Type'])" -like 'application/problem+json*') {
        $problem = $text | ConvertFrom-Json
    }
    if (-not $problem.retryable -or $attempt -ge $attempts) {
        [Console]::Error.WriteLine("not accepted: $($response.StatusCode) $($problem.code), request $($response.Headers['x-request-id'])")
        exit 1
    }
    $wait = if ($problem.retry_after) { $problem.retry_after } else { $attempt * $attempt }
    Start-Sleep -Seconds $wait
}
