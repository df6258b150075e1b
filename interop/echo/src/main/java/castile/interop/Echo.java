package castile.interop;

import jakarta.jws.Oneway;
import jakarta.jws.WebMethod;
import jakarta.jws.WebParam;
import jakarta.jws.WebResult;
import jakarta.jws.WebService;

/** The service of every cell: one operation with an answer, one without. */
@WebService(name = "Echo", targetNamespace = Echo.NAMESPACE)
public interface Echo {
    String NAMESPACE = "urn:castile:echo";
    String WSDL = "META-INF/wsdl/echo.wsdl";

    @WebMethod(action = NAMESPACE + "/echo")
    @WebResult(name = "result", targetNamespace = NAMESPACE)
    String echo(@WebParam(name = "text", targetNamespace = NAMESPACE) String text);

    @Oneway
    @WebMethod(action = NAMESPACE + "/tell")
    void tell(@WebParam(name = "text", targetNamespace = NAMESPACE) String text);
}
