import java.io.*;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;

/** Reads lines FUNCTION TAB HEX; writes HEX. */
class Encode {
    public static void main(String[] args) throws IOException {
        var in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            var text = new String(HexFormat.of().parseHex(line.split("\t", 2)[1]), StandardCharsets.UTF_8);
            System.out.println(HexFormat.of().formatHex(URLEncoder.encode(text, StandardCharsets.UTF_8).getBytes()));
        }
    }
}
