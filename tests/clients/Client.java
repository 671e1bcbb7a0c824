import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.Arrays;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * Sends the requests of a plan with Java's HTTP client, and prints the results; arguments, plan and output are those
 * of client.py, with "h1" or "h2" for the library.
 */
public class Client {
    private static final Pattern STATUS = Pattern.compile("\"status\":\\s*(\\d+)");

    private static SSLContext trusting(String caFile) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream pem = Files.newInputStream(Path.of(caFile))) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }

    public static void main(String[] arguments) throws Exception {
        HttpClient.Version version =
            arguments[0].equals("h2") ? HttpClient.Version.HTTP_2 : HttpClient.Version.HTTP_1_1;
        HttpClient client = HttpClient.newBuilder().version(version).sslContext(trusting(arguments[2])).build();
        int tries = Integer.parseInt(arguments[3]);
        BufferedReader plan = new BufferedReader(new InputStreamReader(System.in));
        for (String line = plan.readLine(); line != null; line = plan.readLine()) {
            String[] fields = line.split(" ");
            byte[] body = new byte[Integer.parseInt(fields[2])];
            Arrays.fill(body, (byte) 'x');
            for (int count = 0; count < tries; count++) {
                HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[1] + fields[0]))
                    .timeout(Duration.ofMinutes(1))
                    .header("X-API-Key", fields[1])
                    .header("Content-Type", "application/json")
                    .POST(HttpRequest.BodyPublishers.ofByteArray(body))
                    .build();
                try {
                    HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
                    Matcher problem = STATUS.matcher(answer.body());
                    String status = problem.find() ? problem.group(1) : "none";
                    System.out.println(
                        answer.version() == version ? answer.statusCode() + " " + status : "- it spoke another version");
                } catch (Exception error) {
                    System.out.println("- " + error.toString().replace('\n', ' '));
                }
            }
        }
        // The client's threads would keep the program running for a while.
        System.exit(0);
    }
}
